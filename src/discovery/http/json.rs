//! Parses JSON of servers without building a tree: values that are not used take no memory.

use std::fmt;
use std::marker::PhantomData;

use hyper::body::Bytes;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A longer text is parsed on another thread: a debug build parses about 10 MB a second, and the control plane has only one
/// thread.
const INLINE_MAX: usize = 64 << 10;

/// Parses a text. The error is for the log.
pub(super) async fn parse<T: DeserializeOwned + Send + 'static>(text: Bytes) -> Result<T, String> {
    if text.len() <= INLINE_MAX {
        return parse_here(&text);
    }
    let parsing = tokio::task::spawn_blocking(move || parse_here(&text));
    parsing.await.unwrap_or_else(|error| Err(error.to_string()))
}

fn parse_here<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| error.to_string())
}

/// A value that may have any type, for responses of servers that are older or newer than this program.
#[derive(Clone, Debug, Default)]
pub(crate) enum Loose<T = IgnoredAny> {
    Text(String),
    Number(u64),
    Object(T),
    /// Of another type, or absent.
    #[default]
    Other,
}

impl<T> Loose<T> {
    /// Returns the text, unless it is empty.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Loose::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    pub(crate) fn number(&self) -> Option<u64> {
        match self {
            Loose::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub(crate) fn object(self) -> Option<T> {
        match self {
            Loose::Object(object) => Some(object),
            _ => None,
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Loose<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Loose<T>, D::Error> {
        deserializer.deserialize_any(LooseVisitor(PhantomData))
    }
}

struct LooseVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for LooseVisitor<T> {
    type Value = Loose<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Loose<T>, E> {
        Ok(Loose::Text(text.to_owned()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Loose<T>, E> {
        Ok(Loose::Number(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Loose<T>, E> {
        Ok(u64::try_from(number).map_or(Loose::Other, Loose::Number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Loose<T>, E> {
        Ok(Loose::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Loose<T>, E> {
        Ok(Loose::Other)
    }

    fn visit_unit<E>(self) -> Result<Loose<T>, E> {
        Ok(Loose::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Loose<T>, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Loose::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Loose<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Loose::Object)
    }
}

/// The part of a list's element that is kept.
pub(crate) trait Element: Sized {
    /// The parsed element.
    type Json: DeserializeOwned;
    /// The number of elements that are kept; further ones are parsed and dropped.
    const MAX: usize;

    /// Converts an element. Returns `None` for one that is ignored; an error rejects the whole list.
    fn read(json: Self::Json) -> Result<Option<Self>, String>;
}

/// A list, each element of which is converted before the next one is parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Elements<T>(pub(crate) Vec<T>);

impl<T> Default for Elements<T> {
    fn default() -> Elements<T> {
        Elements(Vec::new())
    }
}

impl<'de, T: Element> Deserialize<'de> for Elements<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Elements<T>, D::Error> {
        deserializer.deserialize_seq(ElementsVisitor(PhantomData))
    }
}

struct ElementsVisitor<T>(PhantomData<T>);

impl<'de, T: Element> Visitor<'de> for ElementsVisitor<T> {
    type Value = Elements<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Elements<T>, A::Error> {
        let mut kept = Vec::new();
        while let Some(json) = elements.next_element::<T::Json>()? {
            kept.extend(T::read(json).map_err(A::Error::custom)?);
            if kept.len() >= T::MAX {
                while elements.next_element::<IgnoredAny>()?.is_some() {}
                break;
            }
        }
        Ok(Elements(kept))
    }
}

#[cfg(test)]
mod tests;
