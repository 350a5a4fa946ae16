//! What JSON text is, as far as it has come: one object with empty `choices` and a `usage`, or something else.

/// Steps through the data of an event byte by byte. Text that is no JSON is something else sooner or later, or passes for
/// what it looks like.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shape {
    place: Place,
    /// Open brackets.
    depth: u32,
    quoted: bool,
    escaped: bool,
    /// The name of the member, if it is short.
    name: [u8; LONGEST],
    length: usize,
    has_choices: bool,
    has_usage: bool,
}

/// No name that matters is longer.
const LONGEST: usize = 8;

/// Where in the outermost object we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    #[default]
    Before,
    Name,
    Colon,
    Value,
    /// In the value of `choices`.
    Choices,
    /// In another value, or behind one.
    Inside,
    Behind,
    /// It is something else.
    Other,
}

impl Shape {
    /// Whether it is something else, whatever comes.
    pub(super) fn is_other(&self) -> bool {
        self.place == Place::Other
    }

    /// Whether it is an object with empty `choices` and a `usage`, and has ended.
    pub(super) fn is_extra(&self) -> bool {
        self.place == Place::Behind && self.has_choices && self.has_usage
    }

    pub(super) fn step(&mut self, byte: u8) {
        if self.quoted {
            self.in_string(byte);
            return;
        }
        if byte.is_ascii_whitespace() {
            return;
        }
        match self.place {
            Place::Before if byte == b'{' => (self.place, self.depth) = (Place::Name, 1),
            Place::Name if byte == b'"' => (self.quoted, self.length) = (true, 0),
            // Without members, or behind a comma too many.
            Place::Name if byte == b'}' => self.close(),
            Place::Colon if byte == b':' => self.place = Place::Value,
            Place::Value => self.value(byte),
            Place::Choices if byte == b']' => self.close(),
            Place::Inside => match byte {
                b'"' => self.quoted = true,
                b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                b'}' | b']' => self.close(),
                b',' if self.depth == 1 => self.place = Place::Name,
                _ => {}
            },
            // Also a choice, and what stands behind the object.
            _ => self.place = Place::Other,
        }
    }

    fn in_string(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => {
                self.quoted = false;
                if self.place == Place::Name {
                    self.place = Place::Colon;
                }
                return;
            }
            _ => {}
        }
        if self.place == Place::Name {
            if let Some(place) = self.name.get_mut(self.length) {
                *place = byte;
            }
            self.length += 1;
        }
    }

    /// The first byte of a value.
    fn value(&mut self, byte: u8) {
        self.place = Place::Inside;
        match (self.name.get(..self.length).unwrap_or_default(), byte) {
            (b"choices", b'[') => (self.place, self.has_choices) = (Place::Choices, true),
            (b"usage", b'{') => self.has_usage = true,
            // An error is nobody's to take out.
            (b"choices" | b"usage", _) | (b"error", b'{' | b'[' | b'"') => {
                self.place = Place::Other;
                return;
            }
            _ => {}
        }
        match byte {
            b'"' => self.quoted = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' | b',' | b':' => self.place = Place::Other,
            _ => {}
        }
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.place = match self.depth {
            0 if self.has_choices && self.has_usage => Place::Behind,
            0 => Place::Other,
            _ => Place::Inside,
        };
    }
}
