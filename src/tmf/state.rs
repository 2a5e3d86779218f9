//! Where a service stands in TM Forum's life cycle, as the network is, not as it was ordered: a modem counts when it has said so.

use std::fmt;
use std::str::FromStr;

use crate::account::{ServiceType, Status};
use crate::provision::{AaaAccess, CmAccess, Content};

/// A state of a service (ServiceStateType).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Ordered for later; nothing passes. Which of the three it is stands in the order.
    FeasibilityChecked,
    Designed,
    /// Also: ordered to work, and never yet in force.
    Reserved,
    /// In force and closed: a hold, or a first day that has not come.
    Inactive,
    /// In force, and open.
    Active,
    Terminated,
}

/// A text that is no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateError;

/// One element that a service needs.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    pub desired: &'a Content,
    /// What is known to be in force; `None`: nothing was yet.
    pub applied: Option<&'a Content>,
}

impl State {
    pub const ALL: [State; 6] = [
        State::FeasibilityChecked,
        State::Designed,
        State::Reserved,
        State::Inactive,
        State::Active,
        State::Terminated,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            State::FeasibilityChecked => "feasibilityChecked",
            State::Designed => "designed",
            State::Reserved => "reserved",
            State::Inactive => "inactive",
            State::Active => "active",
            State::Terminated => "terminated",
        }
    }

    /// What is asked of a service by ordering this state; `None`: nothing restricts it.
    pub fn status(self) -> Option<Status> {
        match self {
            State::FeasibilityChecked | State::Designed | State::Reserved => Some(Status::Pending),
            State::Inactive => Some(Status::Suspended),
            State::Active => None,
            State::Terminated => Some(Status::Terminated),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for State {
    type Err = StateError;

    /// `suspended`, as version 5 has it, is `inactive`.
    fn from_str(text: &str) -> Result<Self, StateError> {
        let text = if text == "suspended" { "inactive" } else { text };
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(StateError)
    }
}

/// The state of a service. `status` is the stricter of its account's and its own; `ordered` is the state that was ordered,
/// where that is kept; `elements` are those it needs, without those that are gone.
pub fn state(of: ServiceType, status: Status, ordered: Option<State>, elements: &[Standing<'_>]) -> State {
    match status {
        Status::Terminated => return State::Terminated,
        Status::Pending => {
            let waiting = ordered.filter(|state| state.status() == Some(Status::Pending));
            return waiting.unwrap_or(State::Reserved);
        }
        Status::Active | Status::Suspended => {}
    }
    let in_force = elements.iter().filter_map(|element| element.applied);
    let in_force: Vec<&Content> = in_force.filter(|content| **content != Content::Absent).collect();
    if in_force.len() < elements.len() {
        // What is ordered closed needs nothing to be closed.
        let closed = elements.iter().any(|element| !lets_through(of, element.desired));
        return if closed { State::Inactive } else { State::Reserved };
    }
    let open = status == Status::Active || !elements.is_empty();
    match open && in_force.iter().all(|content| lets_through(of, content)) {
        true => State::Active,
        false => State::Inactive,
    }
}

/// Whether an element with this content lets a service of this type work, be it slowly.
fn lets_through(of: ServiceType, content: &Content) -> bool {
    match (of, content) {
        (ServiceType::Voice, Content::Cm(cm)) => cm.access != CmAccess::Blocked,
        (_, Content::Cm(cm)) => matches!(cm.access, CmAccess::Active | CmAccess::Throttled { .. }),
        (_, Content::Mta(mta)) => mta.enabled,
        (_, Content::Mailbox(mailbox)) => mailbox.active && !mailbox.prepared,
        (_, Content::Aaa(login)) => login.access == AaaAccess::Accept,
        (_, Content::Absent) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provision::CmContent;
    use crate::vocabulary::MacAddress;

    fn modem(access: CmAccess) -> Content {
        let mac: MacAddress = "00:11:22:33:44:55".parse().expect("a MAC");
        Content::Cm(CmContent { access, ..CmContent::blocked(mac) })
    }

    #[test]
    fn a_service_is_active_only_when_what_is_in_force_lets_it_work() {
        let (open, shut, garden) = (modem(CmAccess::Active), modem(CmAccess::Blocked), modem(CmAccess::Garden));
        let slow = modem(CmAccess::Throttled { profile: "slow".to_owned() });
        let (internet, voice) = (ServiceType::Internet, ServiceType::Voice);
        for (of, status, desired, applied, expected) in [
            (internet, Status::Active, &open, None, State::Reserved),
            (internet, Status::Active, &open, Some(&Content::Absent), State::Reserved),
            (internet, Status::Active, &open, Some(&open), State::Active),
            (internet, Status::Active, &slow, Some(&slow), State::Active),
            // A hold that the modem does not know of yet changes nothing, and neither does one that it has not forgotten.
            (internet, Status::Suspended, &shut, Some(&open), State::Active),
            (internet, Status::Active, &open, Some(&shut), State::Inactive),
            (internet, Status::Suspended, &shut, Some(&shut), State::Inactive),
            (internet, Status::Suspended, &shut, None, State::Inactive),
            (internet, Status::Active, &garden, Some(&garden), State::Inactive),
            (voice, Status::Suspended, &garden, Some(&garden), State::Active),
            (voice, Status::Active, &shut, Some(&shut), State::Inactive),
            (internet, Status::Pending, &shut, Some(&open), State::Reserved),
            (internet, Status::Terminated, &shut, Some(&open), State::Terminated),
        ] {
            let found = state(of, status, None, &[Standing { desired, applied }]);
            assert_eq!(found, expected, "{of} {status} {desired:?} {applied:?}");
        }
    }

    #[test]
    fn of_several_elements_each_must_be_in_force() {
        let (open, shut) = (modem(CmAccess::Active), modem(CmAccess::Blocked));
        let all = |second: Option<&Content>| {
            let first = Standing { desired: &open, applied: Some(&open) };
            let second = second.map_or(Standing { desired: &open, applied: None }, |applied| Standing {
                desired: &open,
                applied: Some(applied),
            });
            state(ServiceType::Internet, Status::Active, None, &[first, second])
        };
        assert_eq!((all(Some(&open)), all(Some(&shut)), all(None)), (State::Active, State::Inactive, State::Reserved));
    }

    #[test]
    fn what_waits_is_called_as_it_was_ordered() {
        let found = |ordered| state(ServiceType::Internet, Status::Pending, ordered, &[]);
        assert_eq!(found(Some(State::FeasibilityChecked)), State::FeasibilityChecked);
        assert_eq!(found(Some(State::Active)), State::Reserved);
        assert_eq!(("suspended".parse(), "gone".parse::<State>()), (Ok(State::Inactive), Err(StateError)));
    }
}
