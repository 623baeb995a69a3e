//! Tables with aligned columns, and numbers with a unit. Pure.

use std::borrow::Cow;
use std::time::Duration;

use crate::escape::escaped;

/// Formats a number of bytes with a binary prefix: `12.3 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS.get(unit).unwrap_or(&""))
}

/// Aligns columns to their widest cell, separated by two spaces, without trailing spaces. Control characters are escaped, so
/// that each row is one line.
pub fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let rows: Vec<[Cow<'_, str>; N]> =
        rows.iter().map(|row| row.each_ref().map(|cell| escaped(cell))).collect();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Formats a duration in its two largest units: `3d 4h`, `12m 5s`, `0s`.
pub fn age(age: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut left = age.as_secs();
    let mut parts = Vec::new();
    for (seconds, unit) in UNITS {
        if left >= seconds && parts.len() < 2 {
            parts.push(format!("{}{unit}", left / seconds));
        }
        left %= seconds;
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// Formats how long ago something happened, in one unit.
pub(super) fn ago(age: Duration) -> String {
    match age.as_secs() {
        seconds @ ..60 => format!("{seconds} s ago"),
        seconds @ ..3600 => format!("{} min ago", seconds / 60),
        seconds => format!("{} h ago", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits_and_a_unit() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 30), "5.0 GiB");
    }

    #[test]
    fn an_age_has_two_units_at_most() {
        let shown = |seconds| age(Duration::from_secs(seconds));
        assert_eq!([0, 59, 61, 3_600, 90_061].map(shown), ["0s", "59s", "1m 1s", "1h", "1d 1h"]);
    }

    #[test]
    fn columns_are_aligned_without_trailing_spaces() {
        let rows = [["a".to_owned(), "b".to_owned()], ["long".to_owned(), String::new()]];
        assert_eq!(aligned(&rows), "a     b\nlong\n");
    }
}
