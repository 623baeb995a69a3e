//! The route in one line: `LISTEN=TARGET[,TARGET...][?option=value[&...]]`. Pure.

use crate::diagnostic::{Diagnostic, Place};
use crate::route::{Listen, Options, Route};

/// Reads one route; every mistake in it at once.
pub fn parse_route(_text: &str, place: &Place) -> Result<Route, Vec<Diagnostic>> {
    Err(vec![Diagnostic::new(place.clone(), "not read yet")])
}

/// Reads the LISTEN part alone, as labels have it in their key.
pub fn parse_listen(_text: &str, place: &Place) -> Result<Listen, Diagnostic> {
    Err(Diagnostic::new(place.clone(), "not read yet"))
}

/// Reads what stands after the `?`, for a listener's route.
pub fn parse_options(_text: &str, _listen: &Listen, _place: &Place) -> Result<Options, Vec<Diagnostic>> {
    Err(Vec::new())
}
