// Both towers of an exported TVTSv2 model, and the processor's evaluation transform.
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";
import { Tokenizer } from "./node_modules/@huggingface/tokenizers/dist/tokenizers.min.mjs";

ort.env.wasm.wasmPaths = new URL("./node_modules/onnxruntime-web/dist/", import.meta.url).href;
if (!self.crossOriginIsolated) ort.env.wasm.numThreads = 1; // threads need shared memory

const RESIZE_TO_CROP_RATIO = 1.2;

async function fetchJson(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${address}: ${response.status} ${response.statusText}`);
  return response.json();
}

/** Return `{ embedText, embedFrames, embedVideo }` of a folder that `tvtsv2 export` wrote. */
export async function loadModel(folder) {
  const [{ video_processor: settings }, tokenizerJson, tokenizerConfig] = await Promise.all(
    ["processor_config.json", "tokenizer.json", "tokenizer_config.json"].map((name) => fetchJson(`${folder}/${name}`)),
  );
  if (settings.preset !== "evaluation") throw new Error(`The page has the evaluation transform, not ${settings.preset}.`);
  const tokenizer = new Tokenizer(tokenizerJson, tokenizerConfig);
  const [videoTower, textTower] = await Promise.all(
    ["video", "text"].map((name) => ort.InferenceSession.create(`${folder}/${name}.onnx`, { executionProviders: ["wasm"] })),
  );
  const maxLength = tokenizerConfig.model_max_length;

  async function embedText(text) {
    let { ids } = tokenizer.encode(text);
    if (ids.length > maxLength) ids = [...ids.slice(0, maxLength - 1), ids.at(-1)]; // the end-of-text token stays
    const input = new ort.Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]);
    return (await textTower.run({ input_ids: input })).text_embeds.data;
  }

  /** Return the embedding of frames: `ImageData`, all of one size. */
  async function embedFrames(frames) {
    const { height, width } = settings.crop_size;
    const shape = [1, frames.length, 3, height, width];
    const input = new ort.Tensor("float32", pixelValues(frames, settings), shape);
    return (await videoTower.run({ pixel_values_videos: input })).video_embeds.data;
  }

  const embedVideo = async (file) => embedFrames(await readFrames(file, settings.num_frames));
  return { embedText, embedFrames, embedVideo };
}

/** Return frames of a video file (a Blob): those shown just before the middle of `numFrames` equal intervals. */
export async function readFrames(file, numFrames) {
  const video = document.createElement("video");
  const happens = (name) =>
    new Promise((resolve, reject) => {
      video.addEventListener(name, resolve, { once: true });
      video.addEventListener("error", () => reject(new Error(`The video cannot be read: ${video.error.message}`)));
    });
  video.muted = true;
  video.preload = "auto";
  video.src = URL.createObjectURL(file);
  try {
    await happens("loadeddata");
    if (!Number.isFinite(video.duration)) throw new Error("The video cannot be read: it has no duration.");
    const { videoWidth: width, videoHeight: height } = video;
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    const frames = [];
    for (let index = 0; index < numFrames; index++) {
      video.currentTime = Math.max(0, ((index + 0.5) / numFrames) * video.duration - 0.001);
      await happens("seeked");
      context.drawImage(video, 0, 0);
      frames.push(context.getImageData(0, 0, width, height));
    }
    return frames;
  } finally {
    URL.revokeObjectURL(video.src);
  }
}

/** Return pixel values (frames, 3, height, width): short side resized by PIL's nearest filter, center crop, normalized. */
function pixelValues(frames, settings) {
  const { crop_size: crop, image_mean: mean, image_std: std, rescale_factor: scale } = settings;
  const { width, height } = frames[0];
  const side = Math.trunc(RESIZE_TO_CROP_RATIO * Math.max(crop.height, crop.width));
  const short = Math.min(width, height);
  const rows = croppedIndices(height, Math.floor((side * height) / short), crop.height);
  const columns = croppedIndices(width, Math.floor((side * width) / short), crop.width);
  const values = new Float32Array(frames.length * 3 * rows.length * columns.length);
  let place = 0;
  for (const { data } of frames)
    for (let color = 0; color < 3; color++)
      for (const row of rows)
        for (const column of columns)
          values[place++] = (data[4 * (row * width + column) + color] * scale - mean[color]) / std[color];
  return values;
}

/** Return the source row (or column) of each one that is left after resizing and cropping. */
function croppedIndices(sourceSize, resizedSize, cropSize) {
  const step = sourceSize / resizedSize;
  const indices = [];
  let position = 0.5 * step; // added up as PIL does it: rounding decides ties
  for (let index = 0; index < resizedSize; index++, position += step)
    indices.push(Math.min(Math.floor(position), sourceSize - 1));
  const half = (resizedSize - cropSize) / 2;
  const start = half % 1 === 0.5 ? 2 * Math.round(half / 2) : Math.round(half); // halves round to even
  return indices.slice(start, start + cropSize);
}

/** Return the clips, `{ name, embedding }`, by falling cosine with an embedding, which is added as `cosine`. */
export function search(clips, embedding) {
  const norm = (vector) => Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
  const dot = (a, b) => a.reduce((sum, value, index) => sum + value * b[index], 0);
  return clips
    .map((clip) => ({ ...clip, cosine: dot(clip.embedding, embedding) / (norm(clip.embedding) * norm(embedding)) }))
    .sort((a, b) => b.cosine - a.cosine);
}
