//! A network between the nodes of a cluster that fails when a test tells it to: a proxy stands in front of each node's
//! listener of controllers, and nodes are told the proxy's address in place of the node's own.
//!
//! The first frame on a connection has the client id of the node that asks, so each connection is known to be between two
//! nodes. Connections of anybody else, such as tests, pass unharmed.
//!
//! What was sent into a stalled connection arrives when the connection goes on, unless the sender has closed the
//! connection meanwhile. It could arrive even then in a real network, and a controller would carry out a change that its
//! sender has long asked for again: a test could not tell from that a change that was lost.

use std::collections::{BTreeMap, BTreeSet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// How many bytes a stalled connection takes before its sender's socket is read no more.
const HELD_BYTES_MAX: usize = 1 << 20;

/// From one node to another, each by its place in the cluster.
type Way = (usize, usize);

#[derive(Debug)]
pub struct Network {
    runtime: Runtime,
    faults: watch::Sender<Faults>,
}

#[derive(Debug, Default)]
struct Faults {
    /// On these ways nothing arrives for now.
    stalled: BTreeSet<Way>,
    /// Between these nodes, the smaller place first, no connection can be made.
    refused: BTreeSet<Way>,
    /// How often all connections between two nodes were closed.
    cuts: BTreeMap<Way, u64>,
}

impl Faults {
    fn cuts(&self, way: Way) -> u64 {
        self.cuts.get(&unordered(way)).copied().unwrap_or_default()
    }
}

impl Network {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self { runtime: runtime.expect("a runtime"), faults: watch::Sender::default() }
    }

    /// Stands in front of `port`, on which the node in `place` listens or will listen. Gives the port that others are to
    /// connect to.
    pub fn in_front_of(&self, place: usize, port: u16) -> u16 {
        let listener = self.runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("the proxy's address");
        let faults = self.faults.clone();
        self.runtime.spawn(async move {
            while let Ok((asker, _)) = listener.accept().await {
                tokio::spawn(carry(asker, place, port, faults.clone()));
            }
        });
        address.port()
    }

    /// Nothing that `from` sends arrives at `to`, until the network is healed.
    pub fn stall(&self, from: usize, to: usize) {
        self.faults.send_modify(|faults| _ = faults.stalled.insert((from, to)));
    }

    /// Closes the connections between two nodes. They may make new ones.
    pub fn cut(&self, one: usize, other: usize) {
        self.faults.send_modify(|faults| *faults.cuts.entry(unordered((one, other))).or_default() += 1);
    }

    /// Closes the connections between two nodes, and every new one until the network is healed.
    pub fn refuse(&self, one: usize, other: usize) {
        self.faults.send_modify(|faults| _ = faults.refused.insert(unordered((one, other))));
        self.cut(one, other);
    }

    pub fn heal(&self) {
        self.faults.send_modify(|faults| {
            faults.stalled.clear();
            faults.refused.clear();
        });
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

fn unordered((one, other): Way) -> Way {
    (one.min(other), one.max(other))
}

/// Carries one connection until either end closes it, or it is cut.
async fn carry(mut asker: TcpStream, place: usize, port: u16, faults: watch::Sender<Faults>) {
    let mut first = Vec::new();
    let Ok(from) = read_sender(&mut asker, &mut first).await else { return };
    // A way from a node to itself never fails.
    let from = from.unwrap_or(place);
    let mut watched = faults.subscribe();
    let (is_refused, cuts) = {
        let faults = watched.borrow();
        (faults.refused.contains(&unordered((from, place))), faults.cuts((from, place)))
    };
    if is_refused {
        return;
    }
    let Ok(asked) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    for stream in [&asker, &asked] {
        let _ = stream.set_nodelay(true);
    }
    let ((from_asker, to_asker), (from_asked, to_asked)) = (asker.into_split(), asked.into_split());
    tokio::select! {
        () = pump(from_asker, to_asked, first, (from, place), faults.subscribe()) => {}
        () = pump(from_asked, to_asker, Vec::new(), (place, from), faults.subscribe()) => {}
        _ = watched.wait_for(|faults| faults.cuts((from, place)) != cuts) => {}
    }
}

/// Reads the beginning of a connection up to the client id, which says which node it is from: `raft-client-1` and `1` are
/// those of the node in place 0.
async fn read_sender(stream: &mut TcpStream, first: &mut Vec<u8>) -> std::io::Result<Option<usize>> {
    // The length, the API's key and version, the correlation id, and the length of the client id.
    let mut header = [0; 14];
    stream.read_exact(&mut header).await?;
    first.extend(header);
    let len = i16::from_be_bytes([header[12], header[13]]);
    let mut id = vec![0; usize::try_from(len).unwrap_or(0)];
    stream.read_exact(&mut id).await?;
    first.extend(&id);
    let id = String::from_utf8_lossy(&id);
    let node = id.strip_prefix("raft-client-").unwrap_or(&id).parse::<usize>();
    Ok(node.ok().and_then(|node| node.checked_sub(1)))
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut held: Vec<u8>,
    way: Way,
    mut faults: watch::Receiver<Faults>,
) {
    let mut is_open = true;
    loop {
        let is_stalled = faults.borrow_and_update().stalled.contains(&way);
        if !is_stalled {
            if !is_open || to.write_all(&held).await.is_err() {
                return;
            }
            held.clear();
        }
        tokio::select! {
            changed = faults.changed(), if is_stalled => if changed.is_err() { return },
            read = from.read_buf(&mut held), if is_open && held.len() < HELD_BYTES_MAX => {
                is_open = read.is_ok_and(|bytes| bytes > 0);
            }
        }
    }
}
