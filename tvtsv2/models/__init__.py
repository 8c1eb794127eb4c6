"""Model folders: loading, checking, embedding, exporting."""
