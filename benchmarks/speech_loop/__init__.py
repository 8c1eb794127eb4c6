"""Raw videos to a trained model: recognized speech, and speech that is early, late or about nothing."""
