//! In any order of operations the limits hold and the counters stay consistent.

use proptest::prelude::*;

use super::*;

/// Takes as many units as possible.
fn fill(budget: &Budget, share: &Share) -> usize {
    std::iter::from_fn(|| budget.take([share], 0).then_some(())).count()
}

fn committed(budget: &Budget) -> i64 {
    budget.committed.load(Relaxed)
}

#[test]
fn single_share_may_use_everything() {
    let (budget, share) = (Budget::new(100), Share::default());
    budget.set_guarantee(&share, guarantee(100, 1, 2));
    assert_eq!((fill(&budget, &share), share.guaranteed()), (100, 50));
    budget.give_back([&share]);
    assert!(budget.take([&share], 0));
}

#[test]
fn unused_guarantees_of_others_are_not_borrowed() {
    let (budget, greedy, modest) = (Budget::new(100), Share::default(), Share::default());
    for share in [&greedy, &modest] {
        budget.set_guarantee(share, guarantee(100, 2, 2));
    }
    assert_eq!(fill(&budget, &greedy), 75);
    assert_eq!(fill(&budget, &modest), 25);
}

#[test]
fn later_share_gets_its_guarantee_as_others_return_what_they_borrowed() {
    let (budget, early, late) = (Budget::new(100), Share::default(), Share::default());
    assert_eq!(fill(&budget, &early), 100);
    budget.set_guarantee(&early, 25);
    budget.set_guarantee(&late, 25);
    assert!(!budget.take([&late], 0), "nothing is free");
    budget.give_back([&early]);
    assert!(!budget.take([&early], 0), "a share above its guarantee does not get what it returned");
    assert!(budget.take([&late], 0));
}

#[test]
fn borrowing_leaves_the_spare_units_but_the_guarantee_is_available() {
    let (budget, sparing, other) = (Budget::new(100), Share::default(), Share::default());
    budget.set_guarantee(&sparing, 10);
    let taken = std::iter::from_fn(|| budget.take([&sparing], 30).then_some(())).count();
    assert_eq!(taken, 70);
    assert_eq!(fill(&budget, &other), 30);
    budget.give_back([&sparing]);
    assert!(!budget.take([&sparing], 30));
    (0..60).for_each(|_| budget.give_back([&sparing]));
    assert_eq!(fill(&budget, &other), 60, "all but the guarantee");
    assert!(budget.take([&sparing], 30));
}

#[test]
fn pair_is_taken_as_a_whole_or_not_at_all() {
    let (budget, share) = (Budget::new(3), Share::default());
    assert!(budget.take([&share, &share], 0));
    assert!(!budget.take([&share, &share], 0));
    assert_eq!((share.used(), committed(&budget)), (2, 2));
    assert!(budget.take([&share], 0));
}

#[test]
fn guarantees_are_half_of_what_is_free_and_at_least_the_minimum_if_possible() {
    assert_eq!(guarantee(800, 1, 2), 400);
    assert_eq!(guarantee(800, 2, 2), 200);
    assert_eq!(guarantee(800, 300, 2), 2, "one would be of no use");
    assert_eq!(guarantee(800, 500, 2), 1);
    assert_eq!((guarantee(800, 0, 2), guarantee(0, 8, 2)), (0, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Take(usize, u32),
    GiveBack(usize),
    Guarantee(usize, u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3usize, 0..10u32).prop_map(|(share, spare)| Step::Take(share, spare)),
        3 => (0..3usize).prop_map(Step::GiveBack),
        1 => (0..3usize, 0..12u32).prop_map(|(share, guaranteed)| Step::Guarantee(share, guaranteed)),
    ]
}

proptest! {
    #[test]
    fn limits_hold_and_a_share_below_its_guarantee_succeeds(steps in prop::collection::vec(step(), 0..300)) {
        let (budget, shares) = (Budget::new(40), [(); 3].map(|()| Share::default()));
        for step in steps {
            match step {
                Step::Take(n, spare) => {
                    let within = shares[n].used() < shares[n].guaranteed();
                    let used: u32 = shares.iter().map(Share::used).sum();
                    let taken = budget.take([&shares[n]], spare);
                    prop_assert!(taken || !within || used == 40);
                }
                Step::GiveBack(n) if shares[n].used() > 0 => budget.give_back([&shares[n]]),
                Step::GiveBack(_) => {}
                Step::Guarantee(n, guaranteed) => budget.set_guarantee(&shares[n], guaranteed),
            }
            let used: u32 = shares.iter().map(Share::used).sum();
            prop_assert!(used <= 40);
            prop_assert_eq!(used, budget.used());
            let expected: i64 = shares.iter().map(|s| i64::from(s.used().max(s.guaranteed()))).sum();
            prop_assert_eq!(committed(&budget), expected);
        }
    }
}

#[test]
fn counters_are_zero_after_all_threads_have_returned_their_units() {
    let (budget, shares) = (Budget::new(7), [Share::default(), Share::default()]);
    std::thread::scope(|scope| {
        for n in 0..4 {
            let (budget, shares) = (&budget, &shares);
            scope.spawn(move || {
                for round in 0..20_000u32 {
                    let share = &shares[n % 2];
                    if budget.take([share, share], 0) {
                        budget.give_back([share, share]);
                    }
                    if n == 3 {
                        budget.set_guarantee(share, round % 5);
                    }
                }
            });
        }
    });
    shares.iter().for_each(|share| budget.set_guarantee(share, 0));
    assert_eq!((budget.used(), committed(&budget)), (0, 0));
}
