//! Compares expected to counted system calls.

use std::collections::BTreeMap;
use std::fmt::Write;

/// A system call with its number per round.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) times: usize,
    pub(crate) what_for: &'static str,
}

/// The number of each call in all rounds.
pub(crate) type Counts = BTreeMap<String, usize>;

/// Calls that do not belong to the rounds: strace interrupts the wait of each thread when it attaches and detaches, and
/// a worker's clock ticks while sessions begin. Far less than one call per round.
fn residue(rounds: usize) -> usize {
    rounds / 2
}

/// Returns a table if the counts differ from the expected ones.
pub(crate) fn exactly(expected: &[Call], counted: &Counts, rounds: usize) -> Result<(), String> {
    compare(expected, counted, rounds, |expected, count| expected.abs_diff(count) > residue(rounds))
}

/// Returns a table if the counts exceed the expected ones.
pub(crate) fn at_most(expected: &[Call], counted: &Counts, rounds: usize) -> Result<(), String> {
    compare(expected, counted, rounds, |expected, count| count > expected + residue(rounds))
}

fn compare(
    expected: &[Call],
    counted: &Counts,
    rounds: usize,
    is_wrong: impl Fn(usize, usize) -> bool,
) -> Result<(), String> {
    let mut table = format!("{:16} expected   counted, in each of {rounds} rounds", "");
    let mut all_right = true;
    for (name, (times, what_for)) in rows(expected, counted) {
        let count = counted.get(name).copied().unwrap_or(0);
        let wrong = is_wrong(times * rounds, count);
        all_right &= !wrong;
        let mark = if wrong { "<--" } else { "" };
        let each = count as f64 / rounds as f64;
        write!(table, "\n{name:16} {times:8} {each:9.2} {mark:3} {what_for}").expect("a string");
    }
    if all_right { Ok(()) } else { Err(table) }
}

/// Returns the expected number of each call with its purpose; unexpected calls are included.
fn rows<'c>(expected: &[Call], counted: &'c Counts) -> BTreeMap<&'c str, (usize, String)> {
    let names = expected.iter().map(|call| call.name).chain(counted.keys().map(String::as_str));
    let row = |name| {
        let calls = expected.iter().filter(|call| call.name == name);
        let what_for: Vec<&str> = calls.clone().map(|call| call.what_for).collect();
        (name, (calls.map(|call| call.times).sum(), what_for.join("; ")))
    };
    names.map(row).collect()
}

#[test]
fn differing_counts_are_reported_and_residue_is_not() {
    let expected = [
        Call { name: "read", times: 2, what_for: "one" },
        Call { name: "read", times: 1, what_for: "another" },
        Call { name: "write", times: 1, what_for: "both" },
    ];
    for (read, write, futex, is_exact, is_at_most) in [
        (301, 100, 3, true, true),
        (400, 100, 0, false, false),
        (200, 100, 0, false, true),
        (300, 0, 0, false, true),
        (300, 100, 100, false, false),
    ] {
        let counted = [("read", read), ("write", write), ("futex", futex)];
        let counted = counted.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        for (result, is_right) in
            [(exactly(&expected, &counted, 100), is_exact), (at_most(&expected, &counted, 100), is_at_most)]
        {
            let wrong = result.err().map_or(0, |table| table.matches("<--").count());
            assert_eq!(wrong, usize::from(!is_right), "{counted:?}");
        }
    }
}
