"""Prepared stores: every image of a split resized once and kept as uint8 in one file that all processes map.

A split is one file, `train.store` or `val.store`: a header page, the images (rows, S, S, 3), then tables with a label,
the original's size, a CRC-32 and a mark for each, and the names. It is written beside its name and renamed when whole.

Training images hold the whole picture, squeezed into the square (layout `whole`). A part of a picture is then drawn
by the same law, on the same grid and from the same draws as in the tier that decodes files. A store of centre squares
would draw other parts: of a 4:3 picture a quarter never came into view, and parts of 8 to 100 % of the square are 6 to
75 % of the picture. What squeezing costs is resolution: the long side is kept with as many pixels as the short one,
though with more than where the long side is what has S pixels.

Validation images are the centre square of the picture with its short side resized to S (layout `centre`), placed so
that the middle of the square is, byte for byte, the validation crop of the tier that decodes files: 224 of 256.

A training part has been resized twice, so that small parts come out softer than from the files: a run's identity
therefore names the store.
"""
