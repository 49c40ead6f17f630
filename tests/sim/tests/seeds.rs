//! The seeds that every test run takes, and that a seed is a run.
#![expect(clippy::unwrap_used, reason = "in a test, also in what it is made of")]

use tidings_catalogue::Catalogue;
use tidings_sim::run_seed;
use tidings_types::Sabotage;

/// Seeds of the tests; `cargo xtask sim --seeds 2000` takes more.
const SEEDS: u64 = 200;

#[test]
fn nothing_is_lost_under_any_of_the_seeds() {
    let catalogue = Catalogue::builtin();
    let mut wrong = Vec::new();
    for seed in 0..SEEDS {
        let outcome = run_seed(seed, Sabotage::None, &catalogue, false).unwrap();
        if !outcome.verdict.is_clean() {
            let summary = outcome.verdict.summary();
            wrong.push(format!("repeat with: cargo xtask sim --seed {seed}\n{summary}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Everything ends in the last moments before history is looked at.
#[test]
fn history_is_compared_once_it_shows_the_time_at_which_all_had_ended() {
    let outcome = run_seed(1095, Sabotage::None, &Catalogue::builtin(), false).unwrap();
    assert!(outcome.verdict.is_clean(), "{}", outcome.verdict.summary());
}

#[test]
fn the_same_seed_is_the_same_run_and_another_one_is_not() {
    let catalogue = Catalogue::builtin();
    let run = |seed| run_seed(seed, Sabotage::None, &catalogue, false).unwrap().trace;
    for seed in [3, 11] {
        assert_eq!(run(seed), run(seed), "seed {seed} ran in two ways");
    }
    assert_ne!(run(3), run(4));
}

/// Whether the checker names a planted fault within so many seeds.
fn finds(sabotage: Sabotage, within: u64) -> bool {
    let catalogue = Catalogue::builtin();
    (0..within).any(|seed| !run_seed(seed, sabotage, &catalogue, false).unwrap().verdict.is_clean())
}

#[test]
fn the_checker_can_fail() {
    for sabotage in [
        Sabotage::DropOutcome,
        Sabotage::InventDelivered,
        Sabotage::WrongTenantWebhook,
        Sabotage::DecideAnew,
        Sabotage::CommitBeforeDeliveries,
        Sabotage::NoRememberedIds,
    ] {
        assert!(finds(sabotage, 20), "{} was not found", sabotage.name());
    }
}
