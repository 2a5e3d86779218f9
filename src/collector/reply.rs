//! Where an answer goes: a datagram from a port to its peer, or a seat in the queue of a connection's writer.
//!
//! A seat is taken before the request is looked at, so giving the answer to it never waits and never fails for want of
//! room: a peer that does not read its answers holds up its own requests and nobody else's.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc};

use super::port::Peer;

/// Where the answer to a request goes.
#[derive(Debug)]
pub enum Reply {
    /// From the port of this index, from the address that was asked.
    Datagram { port: usize, peer: Peer },
    /// To the writer of the connection the request came on.
    Stream(Seat),
}

/// Room for one answer on a connection.
///
/// Dropped without an answer it tells the connection so. A NAS does not send again on a connection that stands (RFC 6613
/// section 2.6.1): one that owes an answer and will not give it must be closed, so that the NAS sends again on another.
#[derive(Debug)]
pub struct Seat {
    room: Option<mpsc::OwnedPermit<Vec<u8>>>,
    unanswered: Arc<Notify>,
}

impl Seat {
    pub fn new(room: mpsc::OwnedPermit<Vec<u8>>, unanswered: Arc<Notify>) -> Self {
        Self { room: Some(room), unanswered }
    }

    /// Gives the answer to the writer.
    pub fn answer(mut self, octets: Vec<u8>) {
        if let Some(room) = self.room.take() {
            room.send(octets);
        }
    }

    /// There is nothing to answer.
    pub fn leave(mut self) {
        self.room = None;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.room.is_some() {
            self.unanswered.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_seat_dropped_without_an_answer_is_told() {
        let (sender, mut queued) = mpsc::channel(3);
        let unanswered = Arc::new(Notify::new());
        let seat = async || Seat::new(sender.clone().reserve_owned().await.expect("room"), Arc::clone(&unanswered));
        let told = || is_ready(unanswered.notified());
        seat().await.answer(vec![1]);
        seat().await.leave();
        assert_eq!((queued.recv().await, told()), (Some(vec![1]), false));
        drop(seat().await);
        assert!(told());
    }

    fn is_ready(future: impl Future<Output = ()>) -> bool {
        let mut future = std::pin::pin!(future);
        future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    }
}
