//! Which models a key serves.

/// The models of one key: exact names, names with a trailing `*`, and whether it takes what no key names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelSet {
    exact: Vec<String>,
    prefixes: Vec<String>,
    others: bool,
}

impl ModelSet {
    /// The word for "whatever no key names".
    pub const OTHERS: &'static str = "others";

    /// A key that names no model: it serves `others`.
    #[must_use]
    pub fn others() -> Self {
        Self { others: true, ..Self::default() }
    }

    /// Reads a list of names; an entry may itself be a comma list. An empty list means `others`.
    ///
    /// # Errors
    /// The first entry with a `*` anywhere but at its end.
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Result<Self, String> {
        let mut set = Self::default();
        let names = entries.iter().flat_map(|entry| entry.as_ref().split(',')).map(str::trim);
        for name in names.filter(|name| !name.is_empty()) {
            let list = match name.strip_suffix('*') {
                Some(prefix) if prefix.contains('*') => return Err(name.to_owned()),
                Some(prefix) => (&mut set.prefixes, prefix),
                None if name.contains('*') => return Err(name.to_owned()),
                None if name == Self::OTHERS => {
                    set.others = true;
                    continue;
                }
                None => (&mut set.exact, name),
            };
            if !list.0.iter().any(|known| known == list.1) {
                list.0.push(list.1.to_owned());
            }
        }
        if set.exact.is_empty() && set.prefixes.is_empty() {
            set.others = true;
        }
        Ok(set)
    }

    /// The names without a `*`.
    #[must_use]
    pub fn exact(&self) -> &[String] {
        &self.exact
    }

    /// What stands before a trailing `*`.
    #[must_use]
    pub fn prefixes(&self) -> &[String] {
        &self.prefixes
    }

    /// Whether the key serves models that no key names.
    #[must_use]
    pub fn serves_others(&self) -> bool {
        self.others
    }

    /// Whether the key names `model`.
    #[must_use]
    pub fn names(&self, model: &str) -> bool {
        self.exact.iter().any(|name| name == model)
            || self.prefixes.iter().any(|prefix| model.starts_with(prefix.as_str()))
    }

    /// The names as they are written in a file.
    pub fn entries(&self) -> impl Iterator<Item = String> + '_ {
        let exact = self.exact.iter().cloned();
        let prefixes = self.prefixes.iter().map(|prefix| format!("{prefix}*"));
        exact.chain(prefixes).chain(self.others.then(|| Self::OTHERS.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_string_with_commas_is_a_list() {
        let set = ModelSet::parse(&["gpt-4, others"]).unwrap();
        assert_eq!(set.exact(), ["gpt-4"]);
        assert!(set.serves_others());
    }

    #[test]
    fn nothing_named_means_others() {
        assert_eq!(ModelSet::parse::<&str>(&[]).unwrap(), ModelSet::others());
        assert_eq!(ModelSet::parse(&[" , "]).unwrap(), ModelSet::others());
    }

    #[test]
    fn a_star_stands_at_the_end_only() {
        let set = ModelSet::parse(&["gpt-4*", "o1"]).unwrap();
        assert!(set.names("gpt-4o-mini") && set.names("gpt-4") && set.names("o1"));
        assert!(!set.names("o1-mini") && !set.serves_others());
        assert_eq!(ModelSet::parse(&["gpt-*-mini"]).unwrap_err(), "gpt-*-mini");
        assert_eq!(set.entries().collect::<Vec<_>>(), ["o1", "gpt-4*"]);
    }
}
