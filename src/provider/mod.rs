//! What each API's answers mean. The one place that looks at a status code.
