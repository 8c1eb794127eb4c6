"""Video files, frame arrays and text to model inputs."""
