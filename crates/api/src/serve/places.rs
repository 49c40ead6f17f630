//! Who has a connection: so many in all, so many of one peer, and when none is free the
//! one that has been without a request for longest makes room.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::metrics::{Closed, ConnectionMetrics};

/// What of an IPv6 address is one peer: whoever has one has all of its network.
const PEER_BITS: u32 = 64;

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Places {
    table: Mutex<Table>,
    most: usize,
    most_per_peer: Option<usize>,
    metrics: ConnectionMetrics,
    released: Notify,
}

#[derive(Debug, Default)]
struct Table {
    taken: usize,
    peers: BTreeMap<IpAddr, usize>,
    /// Grows with each connection that falls idle.
    turn: u64,
    /// Connections without a request, the longest first.
    idle: BTreeMap<u64, Idle>,
}

#[derive(Debug)]
struct Idle {
    peer: IpAddr,
    close: CancellationToken,
}

/// Whether a connection is served.
#[derive(Debug)]
pub(super) enum Admission {
    Admitted(Arc<Place>),
    /// Its peer has as many as it may, each with a request.
    PeerHasEnough,
    /// All places are taken, each with a request.
    Full,
}

/// One connection's place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    peer: IpAddr,
    close: CancellationToken,
    /// Its key among the idle ones, of its latest idleness.
    turn: Mutex<u64>,
}

/// While this lives, the connection has a request.
#[derive(Debug)]
pub(super) struct Busy(Arc<Place>);

impl Places {
    pub(super) fn new(
        most: usize,
        most_per_peer: Option<usize>,
        metrics: ConnectionMetrics,
    ) -> Arc<Self> {
        let (table, released) = (Mutex::default(), Notify::new());
        Arc::new(Self { table, most, most_per_peer, metrics, released })
    }

    /// Gives a connection a place, at the cost of an idle one if there is none.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Admission {
        let peer = peer_of(address);
        let mut table = self.table.lock();
        let has = table.peers.get(&peer).copied().unwrap_or(0);
        if self.most_per_peer.is_some_and(|most| has >= most) {
            let own = table.idle.iter().find(|(_, idle)| idle.peer == peer);
            let Some((turn, _)) = own else {
                self.metrics.closed(Closed::Peer);
                return Admission::PeerHasEnough;
            };
            let turn = *turn;
            self.close(&mut table, turn);
        } else if table.taken >= self.most {
            let Some((turn, _)) = table.idle.first_key_value() else { return Admission::Full };
            let turn = *turn;
            self.close(&mut table, turn);
        }
        table.taken += 1;
        *table.peers.entry(peer).or_default() += 1;
        self.metrics.opened();
        let (close, turn) = (CancellationToken::new(), Mutex::new(0));
        let place = Arc::new(Place { places: Arc::clone(self), peer, close, turn });
        place.rest(&mut table);
        Admission::Admitted(place)
    }

    /// Closes the connection that has been idle for longest. Says whether there was one.
    pub(super) fn make_room(&self) -> bool {
        let mut table = self.table.lock();
        let Some((turn, _)) = table.idle.first_key_value() else { return false };
        let turn = *turn;
        self.close(&mut table, turn);
        true
    }

    /// Waits until a place has been given back.
    pub(super) async fn released(&self) {
        self.released.notified().await;
    }

    fn close(&self, table: &mut Table, turn: u64) {
        let Some(idle) = table.idle.remove(&turn) else { return };
        idle.close.cancel();
        self.metrics.closed(Closed::Idle);
        self.give_back(table, idle.peer);
    }

    fn give_back(&self, table: &mut Table, peer: IpAddr) {
        table.taken = table.taken.saturating_sub(1);
        if let Some(has) = table.peers.get_mut(&peer) {
            *has = has.saturating_sub(1);
            if *has == 0 {
                table.peers.remove(&peer);
            }
        }
        self.metrics.ended();
        self.released.notify_one();
    }
}

impl Place {
    /// Ends when the place has been given to another: the connection is to be dropped.
    pub(super) async fn lost(&self) {
        self.close.cancelled().await;
    }

    /// A request has come; `None` if the place has been given to another meanwhile.
    pub(super) fn begin(self: &Arc<Self>) -> Option<Busy> {
        let mut table = self.places.table.lock();
        let was_idle = table.idle.remove(&*self.turn.lock()).is_some();
        (was_idle || !self.close.is_cancelled()).then(|| Busy(Arc::clone(self)))
    }

    fn rest(&self, table: &mut Table) {
        table.turn += 1;
        *self.turn.lock() = table.turn;
        table.idle.insert(table.turn, Idle { peer: self.peer, close: self.close.clone() });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.places.table.lock();
        table.idle.remove(&*self.turn.lock());
        // Otherwise it was given back when it was given away.
        if !self.close.is_cancelled() {
            self.places.give_back(&mut table, self.peer);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.rest(&mut self.0.places.table.lock());
    }
}

fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = address.to_bits() >> (128 - PEER_BITS) << (128 - PEER_BITS);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(most: usize, per_peer: Option<usize>) -> Arc<Places> {
        Places::new(most, per_peer, ConnectionMetrics::default())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[track_caller]
    fn admitted(places: &Arc<Places>, peer: &str) -> Arc<Place> {
        match places.admit(address(peer)) {
            Admission::Admitted(place) => place,
            Admission::PeerHasEnough | Admission::Full => panic!("no place for {peer}"),
        }
    }

    #[test]
    fn when_all_places_are_taken_the_longest_idle_makes_room() {
        let places = places(3, None);
        let [one, two, three] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|p| admitted(&places, p));
        // The first one asks again: now the second has been idle for longest.
        drop(one.begin().unwrap());
        let four = admitted(&places, "10.0.0.4");
        assert!(two.close.is_cancelled() && two.begin().is_none());
        assert!(![&one, &three, &four].iter().any(|place| place.close.is_cancelled()));
        // Those with a request stay.
        let busy = [&one, &three, &four].map(|place| place.begin().unwrap());
        assert!(matches!(places.admit(address("10.0.0.5")), Admission::Full));
        drop(busy);
        drop((one, two, three));
        admitted(&places, "10.0.0.6");
        assert!(!four.close.is_cancelled());
        drop(four);
        let table = places.table.lock();
        assert_eq!((table.taken, table.peers.len(), table.idle.len()), (0, 0, 0));
    }

    #[test]
    fn a_peer_with_enough_connections_loses_its_own_and_nobody_elses() {
        let places = places(10, Some(2));
        let other = admitted(&places, "10.0.0.9");
        let one = admitted(&places, "2001:db8::1");
        let two = admitted(&places, "2001:db8::ffff:1");
        let three = admitted(&places, "2001:db8::2");
        assert!(one.close.is_cancelled() && !two.close.is_cancelled());
        assert!(!other.close.is_cancelled());
        let busy = [&two, &three].map(|place| place.begin().unwrap());
        let refused = places.admit(address("2001:db8::3"));
        assert!(matches!(refused, Admission::PeerHasEnough));
        admitted(&places, "2001:db8:0:1::3");
        drop(busy);
        assert_eq!(peer_of(address("::ffff:10.0.0.1")), address("10.0.0.1"));
    }

    #[test]
    fn room_is_made_by_idle_connections_alone() {
        let places = places(10, None);
        assert!(!places.make_room());
        let (one, two) = (admitted(&places, "10.0.0.1"), admitted(&places, "10.0.0.2"));
        let busy = one.begin().unwrap();
        assert!(places.make_room() && two.close.is_cancelled());
        assert!(!places.make_room());
        drop(busy);
        assert!(places.make_room() && one.close.is_cancelled());
    }
}
