//! Files, environment and older formats, turned into the settings of each part.
