"""cubecast: nowcasts of gridded fields with an encoder-forecaster ConvLSTM, and of point series."""
