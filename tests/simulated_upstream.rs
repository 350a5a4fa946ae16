//! The furniture itself: every answer does on the wire what it says.

mod support;
