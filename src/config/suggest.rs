//! Suggestions for unknown words ("did you mean"). Pure.

/// Returns the candidate with the smallest edit distance, if that is small for a word of this length.
pub fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let limit = 1 + word.chars().count() / 4;
    candidates
        .iter()
        .map(|candidate| (edits(&word.to_lowercase(), candidate), *candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Returns ``did you mean `x`?``, or a list of the candidates if none is near.
pub fn suggest(word: &str, candidates: &[&str]) -> String {
    match nearest(word, candidates) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("choose one of {}", list(candidates)),
    }
}

fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// Returns the edit distance: insertions, deletions, substitutions and transpositions of neighbors ("optimal string alignment").
pub(crate) fn edits(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().take(LENGTH_MAX).collect();
    let to: Vec<char> = to.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let swapped = i > 0 && j > 0 && from.get(i - 1) == Some(b) && to.get(j - 1) == Some(a);
            let cost = [
                at(&row, j + 1) + 1,
                at(&next, j) + 1,
                at(&row, j) + usize::from(a != b),
                if swapped { at(&before, j - 1) + 1 } else { usize::MAX },
            ];
            next.push(cost.into_iter().min().unwrap_or(usize::MAX));
        }
        before = std::mem::replace(&mut row, next);
    }
    at(&row, to.len())
}

/// Longer than every candidate: the rest of a word would only increase the distance.
const LENGTH_MAX: usize = 64;

fn at(row: &[usize], index: usize) -> usize {
    row.get(index).copied().unwrap_or(usize::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (from, to, expected) in [
            ("", "", 0),
            ("hold", "hold", 0),
            ("hodl", "hold", 1),
            ("hol", "hold", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(edits(from, to), expected, "{from} -> {to}");
        }
    }

    #[test]
    fn a_typing_error_is_recognized_and_another_word_is_not() {
        let known = ["hold", "balance", "max-sessions", "round-robin"];
        assert_eq!(nearest("hodl", &known), Some("hold"));
        assert_eq!(nearest("Balance", &known), Some("balance"));
        assert_eq!(nearest("max_sessions", &known), Some("max-sessions"));
        assert_eq!(nearest("roundrobin", &known), Some("round-robin"));
        assert_eq!(nearest("weight", &known), None);
    }

    #[test]
    fn a_word_without_a_near_candidate_lists_all_candidates() {
        assert_eq!(suggest("zzz", &["drain", "cut"]), "choose one of `drain`, `cut`");
    }
}
