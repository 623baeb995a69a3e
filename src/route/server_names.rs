//! Which of several routes serves the name that a TLS client asks for: the exact name, then the longest wildcard, then `*`. Pure.

use std::collections::HashMap;

/// Values by the names and wildcards of a listener.
#[derive(Clone, Debug)]
pub struct ServerNames<T> {
    exact: HashMap<String, T>,
    /// By the part after `*.`.
    wildcards: HashMap<String, T>,
    /// That of `*`.
    default: Option<T>,
}

impl<T> Default for ServerNames<T> {
    fn default() -> ServerNames<T> {
        ServerNames { exact: HashMap::new(), wildcards: HashMap::new(), default: None }
    }
}

impl<T> ServerNames<T> {
    /// Sets the value of a name or wildcard, in lower case.
    pub fn insert(&mut self, name: &str, value: T) {
        if name == "*" {
            self.default = Some(value);
        } else if let Some(suffix) = name.strip_prefix("*.") {
            self.wildcards.insert(suffix.to_owned(), value);
        } else {
            self.exact.insert(name.to_owned(), value);
        }
    }

    /// Returns the value for a name in lower case, or for a client that asks for none.
    pub fn find(&self, name: Option<&str>) -> Option<&T> {
        let named = name.and_then(|name| {
            let wildcard = || suffixes(name).find_map(|suffix| self.wildcards.get(suffix));
            self.exact.get(name).or_else(wildcard)
        });
        named.or(self.default.as_ref())
    }
}

/// Returns what wildcards can match of a name: `b.c` and `c` of `a.b.c`.
pub(super) fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, suffix)| suffix)).skip(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_name_precedes_the_longest_wildcard_and_the_default() {
        let mut names = ServerNames::default();
        for name in ["*", "*.example.com", "*.b.example.com", "a.b.example.com"] {
            names.insert(name, name);
        }
        for (asked, expected) in [
            ("a.b.example.com", "a.b.example.com"),
            ("x.b.example.com", "*.b.example.com"),
            ("y.x.b.example.com", "*.b.example.com"),
            ("b.example.com", "*.example.com"),
            ("example.com", "*"),
            ("xexample.com", "*"),
        ] {
            assert_eq!(names.find(Some(asked)), Some(&expected), "{asked}");
        }
        assert_eq!(names.find(None), Some(&"*"));
    }

    #[test]
    fn without_a_default_other_names_have_no_route() {
        let mut names = ServerNames::default();
        names.insert("*.example.com", 1);
        assert_eq!((names.find(Some("example.org")), names.find(None)), (None, None));
    }
}
