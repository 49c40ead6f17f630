//! The state of a notification for given facts, in any order.

use proptest::prelude::*;
use tidings_types::WebhookId;

use super::*;

const LATER: RunId = RunId::from_bytes([7; 16]);
const LATEST: RunId = RunId::from_bytes([8; 16]);

#[derive(Clone, Debug)]
struct Said {
    took: Option<u64>,
    run: RunId,
    place: u64,
    outcome: v1::Outcome,
}

fn said(took: Option<u64>, run: RunId, kind: OutcomeKind, place: u64) -> Said {
    let attempted = matches!(kind, OutcomeKind::AttemptFailed | OutcomeKind::Delivered);
    let outcome = v1::Outcome {
        kind: kind.into(),
        time: i64::try_from(place).unwrap(),
        attempt: u32::from(attempted),
        code: if attempted { format!("HTTP_{place}") } else { String::new() },
        ..Default::default()
    };
    Said { took, run, place, outcome }
}

fn origin() -> Origin {
    Origin {
        chunk: 3,
        record: 1,
        webhook: WebhookId::from_bytes([9; 16]),
        event_type: 4,
        created: Timestamp::from_millis(1),
        home: (0, 17),
    }
}

/// Folds facts in this order; the decision comes before the fact at `decided`.
fn folded(facts: &[Said], decided: usize, suspended: bool) -> Notification {
    let mut notification = Notification::default();
    for (at, fact) in facts.iter().enumerate() {
        if at == decided {
            notification.set_origin(origin(), suspended);
        }
        let kind = fact.outcome.kind();
        let place = Place { offset: fact.place, index: 0 };
        let (took, run) = (fact.took, fact.run);
        notification.fold(&Fact { took, run, kind, place, outcome: &fact.outcome });
    }
    if decided >= facts.len() {
        notification.set_origin(origin(), suspended);
    }
    notification
}

fn state(facts: &[Said]) -> NotificationState {
    folded(facts, 0, false).state().0
}

#[test]
fn without_a_fact_it_is_pending_and_suspended_ones_are_undelivered() {
    assert_eq!(state(&[]), NotificationState::Pending);
    let ended = (NotificationState::Undelivered, Some(EndReason::Suspended));
    assert_eq!(folded(&[], 0, true).state(), ended);
}

#[test]
fn nothing_takes_delivered_back() {
    let delivered = said(Some(1), RunId::FIRST, OutcomeKind::Delivered, 5);
    let gone = said(Some(2), RunId::FIRST, OutcomeKind::Undelivered, 6);
    let open = said(None, LATER, OutcomeKind::ResendAsked, 7);
    assert_eq!(
        state(&[delivered.clone(), gone.clone(), open.clone()]),
        NotificationState::Delivered
    );
    assert_eq!(state(&[open, gone, delivered]), NotificationState::Delivered);
}

#[test]
fn only_what_a_runs_latest_owner_said_counts() {
    let ended = said(Some(1), RunId::FIRST, OutcomeKind::Undelivered, 9);
    let again = said(Some(2), RunId::FIRST, OutcomeKind::TakenUp, 5);
    assert_eq!(state(&[ended.clone(), again.clone()]), NotificationState::Pending);
    assert_eq!(state(&[again, ended]), NotificationState::Pending);
    let router = said(None, RunId::FIRST, OutcomeKind::Cancelled, 99);
    let sender = said(Some(0), RunId::FIRST, OutcomeKind::Expired, 1);
    assert_eq!(state(&[router, sender]), NotificationState::Expired);
}

#[test]
fn a_joined_run_is_passed_over_and_an_asked_resend_is_pending() {
    let first = said(Some(1), RunId::FIRST, OutcomeKind::Expired, 1);
    let joined = said(Some(1), LATER, OutcomeKind::Joined, 2);
    assert_eq!(state(&[joined.clone(), first.clone()]), NotificationState::Expired);
    assert_eq!(state(&[joined]), NotificationState::Pending);
    let asked = said(None, LATER, OutcomeKind::ResendAsked, 3);
    assert_eq!(state(&[first.clone(), asked.clone()]), NotificationState::Pending);
    let ended = said(Some(1), LATER, OutcomeKind::Undelivered, 4);
    assert_eq!(state(&[ended, first, asked]), NotificationState::Undelivered);
}

#[test]
fn a_duplicate_says_nothing_of_the_run() {
    let ended = said(Some(1), RunId::FIRST, OutcomeKind::Undelivered, 1);
    let duplicate = said(Some(2), RunId::FIRST, OutcomeKind::Duplicate, 2);
    assert_eq!(state(&[ended, duplicate]), NotificationState::Undelivered);
}

#[test]
fn two_ends_by_one_owner_disagree() {
    let mut notification = folded(&[], 0, false);
    let fold = |notification: &mut Notification, kind, place| {
        let said = said(Some(1), RunId::FIRST, kind, place);
        let place = Place { offset: place, index: 0 };
        let fact = Fact { took: said.took, run: said.run, kind, place, outcome: &said.outcome };
        notification.fold(&fact)
    };
    assert_eq!(fold(&mut notification, OutcomeKind::Expired, 1), Folded::Agrees);
    assert_eq!(fold(&mut notification, OutcomeKind::Expired, 2), Folded::Agrees);
    assert_eq!(fold(&mut notification, OutcomeKind::Cancelled, 3), Folded::Disagrees);
}

#[test]
fn a_notification_resent_for_ever_keeps_a_bounded_row() {
    let mut facts = Vec::new();
    for n in 1..200_u8 {
        let run = RunId::from_bytes([n; 16]);
        facts.push(said(Some(1), run, OutcomeKind::Undelivered, u64::from(n)));
    }
    let notification = folded(&facts, 0, false);
    assert_eq!(notification.runs.len(), MAX_RUNS);
    assert_eq!(notification.resends(), 199);
    assert_eq!(notification.runs[0].id, RunId::FIRST);
}

fn any_kind() -> impl Strategy<Value = OutcomeKind> {
    (1..=10_i32).prop_map(|kind| OutcomeKind::try_from(kind).unwrap())
}

fn any_facts() -> impl Strategy<Value = Vec<Said>> {
    let run = prop::sample::select(vec![RunId::FIRST, LATER, LATEST]);
    let fact = (prop::option::of(0..3_u64), run, any_kind());
    prop::collection::vec(fact, 0..12).prop_map(|facts| {
        let numbered = facts.into_iter().zip(1..);
        numbered.map(|((took, run, kind), place)| said(took, run, kind, place)).collect()
    })
}

proptest! {
    #[test]
    fn any_order_gives_the_same_notification(
        facts in any_facts(),
        order in any::<prop::sample::Index>(),
        seed: u64,
        suspended: bool,
    ) {
        let straight = folded(&facts, 0, suspended);
        let mut shuffled = facts.clone();
        let mut state = seed | 1;
        for at in (1..shuffled.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            shuffled.swap(at, usize::try_from(state >> 33).unwrap() % (at + 1));
        }
        let decided = order.index(shuffled.len() + 1);
        prop_assert_eq!(&folded(&shuffled, decided, suspended), &straight);
        let twice: Vec<_> = shuffled.iter().chain(&facts).cloned().collect();
        prop_assert_eq!(&folded(&twice, decided, suspended), &straight);
        prop_assert_eq!(Notification::decode(&straight.encode()), Ok(straight));
    }
}
