//! Decides, purely, which live sessions a changed login concerns, what an answer means for an order, and when to ask again.

use std::time::Duration;

use super::channel::Reply;
use super::target::Targets;
use crate::provision::SessionPush;
use crate::radius::{DynamicAnswer, SESSION_CONTEXT_NOT_FOUND, error_cause, may_pass};
use crate::store::nas_control::{Action, Again, Attempted, DueOrder, LiveSession, NewOrder, Outcome, RequestRow};
use crate::vocabulary::Timestamp;

/// Between the moment a login is checked and its Start lie the NAS's own doings, and Start times are whole seconds: a
/// session may have begun with the old rows and say that it began this much after the new ones were written.
const LOGIN_TAKES: Duration = Duration::from_secs(10);
/// A subscriber who was disconnected may be back before our note of it has its time.
const COMES_BACK: Duration = Duration::from_secs(2);
/// An order is tried this often before a person is told.
const ATTEMPTS: i64 = 6;
/// Seconds before the second, third, … attempt.
const BACKOFF_SECONDS: [u64; 5] = [15, 60, 300, 900, 1800];

/// The orders for the sessions that run with something else than their login is to get. One that already has an order
/// gets no other.
pub fn orders(
    request: &RequestRow,
    sessions: &[LiveSession],
    disconnected_at: Option<Timestamp>,
    targets: &Targets,
    now: Timestamp,
) -> Vec<NewOrder> {
    let mut orders = Vec::new();
    for session in sessions.iter().filter(|session| !session.ordered) {
        let target = targets.of_identity(&session.nas);
        let push = match &request.change {
            None => SessionPush::Disconnect,
            Some(change) => {
                let began = session.started_at;
                let is_new = began > later(change.written_at, LOGIN_TAKES)
                    || disconnected_at.is_some_and(|at| later(began, COMES_BACK) >= at);
                if is_new {
                    continue;
                }
                let from = if began <= change.since_at { &change.origin } else { &change.previous };
                let means = target.map_or(crate::provision::SessionMeans::Disconnect, |target| target.means());
                from.push(&change.target, means)
            }
        };
        let (action, attributes) = match push {
            SessionPush::Nothing => continue,
            SessionPush::Disconnect => (Action::Disconnect, Default::default()),
            SessionPush::Coa(attributes) => (Action::Coa, attributes),
        };
        let hopeless = target.is_none().then(|| {
            format!(
                "the configuration gives no coa for NAS {}: the session goes on as it is until it ends by itself",
                session.nas
            )
        });
        let client = target.map(|target| target.client.clone()).unwrap_or_default();
        orders.push(NewOrder { session_id: session.id, client, action, attributes, run_at: now, hopeless });
    }
    orders
}

/// What a reply means for an order.
pub fn attempted(order: &DueOrder, reply: &Reply, now: Timestamp, random: u64) -> Attempted {
    let asked = match order.action {
        Action::Disconnect => "end the session",
        Action::Coa => "change the session",
    };
    let finished =
        |outcome, error_cause, detail: String| Attempted { outcome, error_cause, detail, again: None, sent: true };
    let later_or_never = |outcome, error_cause, detail: String| {
        let index = usize::try_from(order.attempts).unwrap_or(usize::MAX);
        let again = (order.attempts + 1 < ATTEMPTS).then(|| {
            let seconds = BACKOFF_SECONDS[index.min(BACKOFF_SECONDS.len() - 1)];
            Again {
                run_at: later(now, spread(Duration::from_secs(seconds), random)),
                action: order.action,
                afresh: false,
            }
        });
        Attempted { outcome, error_cause, detail, again, sent: true }
    };
    let done = order.instead_of.as_ref().map_or("the NAS did it".to_owned(), |said| format!("{said}, and did"));
    match reply {
        Reply::Answered(DynamicAnswer::Ack) => finished(Outcome::Ack, None, done),
        Reply::Answered(DynamicAnswer::Nak(Some(SESSION_CONTEXT_NOT_FOUND))) => finished(
            Outcome::Unknown,
            Some(SESSION_CONTEXT_NOT_FOUND),
            "the NAS does not know the session (503): its Stop was lost, or never sent".to_owned(),
        ),
        Reply::Answered(DynamicAnswer::Nak(cause)) => {
            let said = match cause {
                Some(cause) => format!("the NAS refused to {asked}: {cause} {}", error_cause(*cause)),
                None => format!("the NAS refused to {asked} and gave no cause"),
            };
            if may_pass(*cause) {
                return later_or_never(Outcome::Nak, *cause, said);
            }
            if order.action == Action::Coa {
                let again = Again { run_at: now, action: Action::Disconnect, afresh: true };
                let detail = format!("{said}; it is asked to end it");
                return Attempted { again: Some(again), ..finished(Outcome::Nak, *cause, detail) };
            }
            finished(Outcome::Nak, *cause, said)
        }
        Reply::Silent { forged, refused, sent } => {
            let why = match (forged, refused) {
                (true, _) => "answers came, signed with another secret",
                (false, true) => "its host refuses the port",
                (false, false) => "no answer",
            };
            later_or_never(Outcome::Silent, None, format!("{why}, {sent} packets sent"))
        }
        Reply::Unsendable(why) if order.action == Action::Coa => Attempted {
            outcome: Outcome::NoMeans,
            error_cause: None,
            detail: format!("the change cannot be sent: {why}; the NAS is asked to end the session"),
            again: Some(Again { run_at: now, action: Action::Disconnect, afresh: true }),
            sent: false,
        },
        Reply::Unsendable(why) => {
            Attempted { sent: false, ..finished(Outcome::NoMeans, None, format!("it cannot be sent: {why}")) }
        }
    }
}

/// Half of the time to one and a half of it.
pub fn spread(time: Duration, random: u64) -> Duration {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX / 2);
    Duration::from_micros(micros / 2 + random % micros.max(1))
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nas_control::target::Target;
    use crate::provision::{Authorization, Login};
    use crate::radius::{Dictionary, IdentityRule};
    use crate::store::nas_control::Authorized;
    use crate::vocabulary::Secret;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_780_000_000 + second).expect("an instant")
    }

    fn rate(value: &str) -> Authorization {
        let attributes = [("Rate".to_owned(), vec![value.to_owned()])].into();
        Authorization { login: Login::Accepted, group: None, attributes }
    }

    fn targets() -> Targets {
        let target = |client: &str, attributes: &[&str]| Target {
            client: client.to_owned(),
            identity: IdentityRule::NasIdentifier,
            address: None,
            port: 3799,
            secret: Secret::new("s"),
            attributes: attributes.iter().map(|name| (*name).to_owned()).collect(),
            nas_address: None,
            names_user: true,
            per_second: 20,
            patience: Duration::from_secs(30),
        };
        Targets::new(vec![target("plain", &[]), target("rich", &["Rate"])], Dictionary::default())
    }

    fn request(origin: &str, previous: &str, target: &str, since: i64) -> RequestRow {
        let change = Authorized {
            origin: rate(origin),
            previous: rate(previous),
            target: rate(target),
            since_at: at(since),
            written_at: at(100),
        };
        RequestRow {
            id: 1,
            element_id: Some(1),
            session_id: None,
            username: Some("ada@acme".to_owned()),
            revision: 2,
            cause: String::new(),
            change: Some(change),
            lane: 1,
            looks: 0,
            created_at: at(100),
        }
    }

    fn session(id: i64, nas: &str, started: i64) -> LiveSession {
        LiveSession {
            id,
            nas: nas.to_owned(),
            session: format!("s{id}"),
            user_name: Some("ada@acme".to_owned()),
            framed_ip: None,
            calling_station: None,
            started_at: at(started),
            ordered: false,
        }
    }

    fn words(orders: &[NewOrder]) -> Vec<String> {
        let word = |order: &NewOrder| {
            let client = if order.hopeless.is_some() { "hopeless" } else { &order.client };
            format!("{} {} {client}", order.session_id, order.action.as_str())
        };
        orders.iter().map(word).collect()
    }

    #[test]
    fn sessions_that_began_with_the_old_rows_are_asked_by_what_their_nas_can() {
        let sessions = [
            session(1, "plain/a", 0),
            session(2, "rich/b", 100),
            session(3, "rich", 110),
            session(4, "rich", 111),
            session(5, "stranger", 0),
            LiveSession { ordered: true, ..session(6, "plain", 0) },
        ];
        let found = orders(&request("1M", "1M", "9M", 100), &sessions, None, &targets(), at(101));
        assert_eq!(words(&found), ["1 disconnect plain", "2 coa rich", "3 coa rich", "5 disconnect hopeless"]);
    }

    #[test]
    fn a_change_and_its_reversal_leave_old_sessions_alone() {
        // 9M, then 1M at 50 s, back to 9M at 100 s, and nothing was sent in between.
        let sessions = [session(1, "plain", 40), session(2, "plain", 60)];
        let found = orders(&request("9M", "1M", "9M", 50), &sessions, None, &targets(), at(101));
        assert_eq!(words(&found), ["2 disconnect plain"], "only the one that began with 1M");
    }

    #[test]
    fn who_was_disconnected_and_came_back_is_left_alone() {
        let sessions = [session(1, "plain", 97), session(2, "plain", 101)];
        let found = orders(&request("1M", "1M", "9M", 100), &sessions, Some(at(102)), &targets(), at(115));
        assert_eq!(words(&found), ["1 disconnect plain"]);
    }

    #[test]
    fn an_operator_s_wish_ends_the_session_whatever_it_runs_with() {
        let wish = RequestRow { change: None, session_id: Some(1), ..request("1M", "1M", "1M", 0) };
        let found = orders(&wish, &[session(1, "rich", 0)], None, &targets(), at(1));
        assert_eq!(words(&found), ["1 disconnect rich"]);
    }

    fn order(action: Action, attempts: i64) -> DueOrder {
        DueOrder {
            id: 1,
            request_id: 1,
            session_id: 1,
            client: "plain".to_owned(),
            action,
            attributes: Default::default(),
            lane: 1,
            attempts,
            nas: "plain".to_owned(),
            session: "s1".to_owned(),
            user_name: None,
            framed_ip: None,
            calling_station: None,
            ended: false,
            instead_of: None,
        }
    }

    #[test]
    fn every_reply_has_its_outcome_and_what_comes_next() {
        use Action::{Coa, Disconnect};
        let nak = |cause| Reply::Answered(DynamicAnswer::Nak(cause));
        let silent = || Reply::Silent { forged: false, refused: false, sent: 5 };
        let cases: [(Action, i64, Reply, &str); 14] = [
            (Disconnect, 0, Reply::Answered(DynamicAnswer::Ack), "ack"),
            (Coa, 0, Reply::Answered(DynamicAnswer::Ack), "ack"),
            (Disconnect, 0, nak(Some(503)), "unknown"),
            (Coa, 0, nak(Some(503)), "unknown"),
            (Disconnect, 0, nak(Some(403)), "nak"),
            (Disconnect, 0, nak(None), "nak"),
            (Disconnect, 0, nak(Some(506)), "nak disconnect in 15 s"),
            (Disconnect, 5, nak(Some(506)), "nak"),
            (Coa, 3, nak(Some(401)), "nak disconnect at once"),
            (Coa, 0, nak(None), "nak disconnect at once"),
            (Coa, 1, nak(Some(506)), "nak coa in 60 s"),
            (Disconnect, 2, silent(), "silent disconnect in 300 s"),
            (Disconnect, 5, silent(), "silent"),
            (Coa, 0, Reply::Unsendable("no such attribute".to_owned()), "no_means disconnect at once"),
        ];
        for (action, attempts, reply, expected) in cases {
            // Half of the span is what a random number of zero leaves; half more is in the middle.
            let found = attempted(&order(action, attempts), &reply, at(0), 0);
            let next = found.again.map_or(String::new(), |again| {
                let seconds = (again.run_at.as_second() - at(0).as_second()) as f64
                    + f64::from(again.run_at.subsec_millisecond()) / 1000.0;
                let when = if seconds == 0.0 { "at once".to_owned() } else { format!("in {} s", seconds * 2.0) };
                format!(" {} {when}", again.action.as_str())
            });
            assert_eq!(format!("{}{next}", found.outcome.as_str()), expected, "{action:?} {attempts} {reply:?}");
        }
    }

    #[test]
    fn silence_says_what_is_known_of_it() {
        for (forged, refused, said) in
            [(true, false, "another secret"), (false, true, "refuses the port"), (false, false, "no answer")]
        {
            let reply = Reply::Silent { forged, refused, sent: 4 };
            let found = attempted(&order(Action::Disconnect, 0), &reply, at(0), 7);
            assert!(found.detail.contains(said), "{}", found.detail);
        }
    }
}
