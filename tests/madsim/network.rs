//! The network: `turmoil-net`'s TCP. One task carries the packets and gives each a delay.
//!
//! Packets from one host to another keep their order. A cut link holds its packets back until it is mended, which looks
//! the same as TCP's retransmission. Windows, segment sizes and delays come from the seed, so a stream may be cut
//! anywhere.

use crate::runs::Log;
use bytes::Bytes;
use madsim::time::{Duration, sleep, timeout};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::mem::ManuallyDrop;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use tidelog::disk::Content;
use tidelog::frames::FrameReader;
use tidelog::sender::Sender;
use tidelog::transport;
use tidelog_core::wire::Address;
use tidelog_sim::random::{Stream as Random, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil_net::shim::tokio::net::{TcpListener, TcpStream};
use turmoil_net::{HostId, KernelConfig, Net, Packet, TcpFlags, TcpSegment, Transport};

/// How often packets move; no packet waits longer than this to be picked up.
const TICK: Duration = Duration::from_millis(1);
/// The most that one call copies.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// The broker's host; clients are on the others.
pub const BROKER: usize = 0;
const HOSTS: usize = 6;
/// The first process of the broker listens on the next port, and each later process on one port further: `turmoil-net`
/// keeps a port in use while any connection of the last process is open.
const PORT: u16 = 9092;

/// The network of one run; clones are the same network.
#[derive(Clone)]
pub struct Network {
    hosts: Vec<HostId>,
    state: Arc<Mutex<NetworkState>>,
}

/// The packets under way between the hosts, and the state of the broker's machine.
struct NetworkState {
    random: Random,
    delay_ms_max: u64,
    under_way: BTreeMap<(IpAddr, IpAddr), VecDeque<(u64, Packet)>>,
    cut: BTreeSet<(IpAddr, IpAddr)>,
    /// The port on which the broker listens, or listened last.
    port: u16,
    power: Power,
}

/// The power of the broker's machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    Off,
    /// On again after a loss of power: connections with ports up to this are forgotten.
    Restored {
        forgotten: u16,
    },
}

pub fn address(host: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, u8::try_from(host + 1).expect("few hosts")])
}

impl Network {
    /// Starts the network. There can be only one in each thread.
    pub fn start(seed: u64, log: Log) -> Self {
        let mut random = stream(seed, "network", &[]);
        let window = *random.pick(&[2_000, 16_000, 64_000]);
        let mtu = *random.pick(&[100, 576, 1_500]);
        let config = KernelConfig::default().mtu(mtu).recv_buf_cap(window).send_buf_cap(window);
        // No packet is lost for good, so none is sent twice.
        let mut net = Net::with_config(config.retx_threshold(u32::MAX));
        let hosts = (0..HOSTS).map(|host| net.add_host(address(host))).collect();
        let delay_ms_max = *random.pick(&[1, 4, 20]);
        let state = NetworkState {
            random,
            delay_ms_max,
            under_way: BTreeMap::new(),
            cut: BTreeSet::new(),
            port: PORT,
            power: Power::On,
        };
        let network = Self { hosts, state: Arc::new(Mutex::new(state)) };
        // Never dropped, so that the network outlives every socket on it.
        let guard = ManuallyDrop::new(net.enter());
        let carried = network.clone();
        madsim::task::spawn(async move {
            let mut packets = Vec::new();
            loop {
                sleep(TICK).await;
                guard.egress_all(&mut packets);
                carried.take_up(&mut packets);
                for packet in carried.arrived() {
                    log.say(format_args!("{}", short(&packet)));
                    guard.deliver(packet);
                }
            }
        });
        network
    }

    /// The listener of a new process of the broker.
    pub async fn listen(&self) -> io::Result<Listener> {
        let (host, port) = (self.hosts[BROKER], self.state().next_port());
        let inner = OnHost { host, future: Box::pin(TcpListener::bind(("0.0.0.0", port))) }.await?;
        Ok(Listener { host, inner })
    }

    /// Opens the connections of the processes on `host`.
    pub fn connector(&self, host: usize) -> Connector {
        Connector { host: self.hosts[host] }
    }

    /// Where the broker listens, or listened last.
    pub fn broker(&self) -> Address {
        Address::new(address(BROKER).to_string(), self.state().port)
    }

    /// Connects from `host` to the broker.
    pub async fn connect(&self, host: usize) -> io::Result<Stream> {
        let (host, to) = (self.hosts[host], SocketAddr::new(address(BROKER), self.state().port));
        let inner = OnHost { host, future: Box::pin(TcpStream::connect(to)) }.await?;
        Ok(Stream { host, inner })
    }

    /// Holds back all packets from one host to the other until [`mend`](Self::mend).
    pub fn cut(&self, from: usize, to: usize) {
        self.state().cut.insert((address(from), address(to)));
    }

    pub fn mend(&self) {
        self.state().cut.clear();
    }

    /// The broker's machine loses its power: packets under way to or from it are lost, and clients are not told.
    pub fn power_off(&self) {
        let state = &mut *self.state();
        state.power = Power::Off;
        state.under_way.retain(|(from, to), _| *from != address(BROKER) && *to != address(BROKER));
    }

    fn state(&self) -> MutexGuard<'_, NetworkState> {
        self.state.lock().expect("a run has one thread")
    }

    fn take_up(&self, packets: &mut Vec<Packet>) {
        let state = &mut *self.state();
        for packet in packets.drain(..) {
            if !state.is_forgotten(packet.src, segment(&packet).src_port) {
                state.send(packet);
            }
        }
    }

    fn arrived(&self) -> Vec<Packet> {
        let (state, now) = (&mut *self.state(), crate::now_ns());
        let mut arrived = Vec::new();
        for (way, link) in &mut state.under_way {
            while !state.cut.contains(way) && link.front().is_some_and(|(at, _)| *at <= now) {
                arrived.extend(link.pop_front().map(|(_, packet)| packet));
            }
        }
        arrived.retain(|packet| {
            let is_for_forgotten = state.is_forgotten(packet.dst, segment(packet).dst_port);
            if is_for_forgotten && state.power != Power::Off && !segment(packet).flags.rst {
                state.send(reset(packet));
            }
            !is_for_forgotten
        });
        arrived
    }
}

impl NetworkState {
    fn next_port(&mut self) -> u16 {
        if self.power == Power::Off {
            self.power = Power::Restored { forgotten: self.port };
        }
        self.port += 1;
        self.port
    }

    /// Whether `ip` and `port` belong to a connection that the broker's machine has forgotten by losing its power.
    fn is_forgotten(&self, ip: IpAddr, port: u16) -> bool {
        ip == address(BROKER)
            && match self.power {
                Power::On => false,
                Power::Off => true,
                Power::Restored { forgotten } => port <= forgotten,
            }
    }

    fn send(&mut self, packet: Packet) {
        let delay_ns = self.random.skewed(self.delay_ms_max * 1_000_000);
        let link = self.under_way.entry((packet.src, packet.dst)).or_default();
        let earliest = link.back().map_or(0, |(at, _)| *at);
        link.push_back((earliest.max(crate::now_ns() + delay_ns), packet));
    }
}

fn segment(packet: &Packet) -> &TcpSegment {
    let Transport::Tcp(segment) = &packet.payload else { unreachable!("nobody speaks UDP") };
    segment
}

/// The answer of a machine to a packet of a connection that it does not know.
fn reset(packet: &Packet) -> Packet {
    let segment = segment(packet);
    let flags = TcpFlags { rst: true, ack: true, ..TcpFlags::default() };
    let len = segment.payload.len() as u32 + u32::from(segment.flags.syn) + u32::from(segment.flags.fin);
    let answer = TcpSegment {
        src_port: segment.dst_port,
        dst_port: segment.src_port,
        seq: segment.ack,
        ack: segment.seq.wrapping_add(len),
        flags,
        window: 0,
        payload: Bytes::new(),
    };
    Packet { src: packet.dst, dst: packet.src, ttl: packet.ttl, payload: Transport::Tcp(answer) }
}

fn short(packet: &Packet) -> String {
    let segment = segment(packet);
    let flags = &segment.flags;
    let mark = |is: bool, mark: &'static str| if is { mark } else { "" };
    format!(
        "{}:{} > {}:{} {}{}{} {}+{} ack {} window {}",
        packet.src,
        segment.src_port,
        packet.dst,
        segment.dst_port,
        mark(flags.syn, "S"),
        mark(flags.fin, "F"),
        mark(flags.rst, "R"),
        segment.seq,
        segment.payload.len(),
        segment.ack,
        segment.window
    )
}

/// A future that always runs as `host`.
struct OnHost<F> {
    host: HostId,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for OnHost<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        turmoil_net::set_current(self.host);
        self.future.as_mut().poll(cx)
    }
}

impl<F> Drop for OnHost<F> {
    fn drop(&mut self) {
        turmoil_net::set_current(self.host);
    }
}

pub struct Listener {
    host: HostId,
    inner: TcpListener,
}

impl transport::Listener for Listener {
    type Socket = Stream;

    async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let accepted = poll_fn(|cx| {
            turmoil_net::set_current(self.host);
            self.inner.poll_accept(cx)
        });
        let (inner, peer) = accepted.await?;
        Ok((Stream { host: self.host, inner }, peer))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        turmoil_net::set_current(self.host);
    }
}

/// Opens connections from one host to others.
#[derive(Clone)]
pub struct Connector {
    host: HostId,
}

impl transport::Connector for Connector {
    type Socket = Stream;

    fn connect(&self, address: &Address, _: usize) -> transport::Connecting<Stream> {
        let (host, ip) = (self.host, address.host.parse().expect("hosts have no names here"));
        let to = SocketAddr::new(ip, address.port);
        Box::pin(async move {
            let inner = OnHost { host, future: Box::pin(TcpStream::connect(to)) }.await?;
            Ok(Stream { host, inner })
        })
    }
}

/// A socket of the broker or of a client. Dropping it closes it as Linux does: with a reset if received bytes were not
/// read, else with a FIN behind what was written.
pub struct Stream {
    host: HostId,
    inner: TcpStream,
}

impl Stream {
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        turmoil_net::set_current(self.host);
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    /// Appends up to `most` bytes that have arrived to `into`; 0 if the peer sends no more.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        into: &mut impl Extend<u8>,
    ) -> Poll<io::Result<usize>> {
        turmoil_net::set_current(self.host);
        let mut piece = vec![0; most.min(PIECE_BYTES_MAX)];
        let mut buffer = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buffer))?;
        into.extend(buffer.filled().iter().copied());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Closes the connection with a reset, by waiting until bytes have arrived and dropping the socket without reading
    /// them. (Under Linux, bytes that arrive at a closed socket cause a reset too; `turmoil-net` keeps them.)
    pub async fn reset(self) {
        let unread = poll_fn(|cx| {
            turmoil_net::set_current(self.host);
            self.inner.poll_peek(cx, &mut ReadBuf::new(&mut [0]))
        });
        // If no bytes arrive, because no request was sent, the connection closes with a FIN.
        let _ = timeout(Duration::from_secs(1), unread).await;
    }

    /// Closes the sending side; reading goes on.
    pub async fn half_close(&mut self) -> io::Result<()> {
        poll_fn(|cx| transport::Socket::poll_shutdown(self, cx)).await
    }
}

impl transport::Socket for Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, reader: &mut FrameReader) -> Poll<io::Result<usize>> {
        turmoil_net::set_current(self.host);
        let mut first = [0];
        if ready!(self.inner.poll_peek(cx, &mut ReadBuf::new(&mut first)))? == 0 {
            return Poll::Ready(Ok(0));
        }
        let mut room = reader.room();
        let most = (room.get_ref().capacity() - room.get_ref().len()).min(room.limit());
        Stream::poll_read(self, cx, most, &mut **room.get_mut())
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write(cx, &[]).map_ok(|_| ())
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        turmoil_net::set_current(self.host);
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn try_send(&mut self, sender: &mut Sender) -> io::Result<()> {
        sender.send_some(self)
    }
}

impl transport::Output for Stream {
    fn send(&self, slices: &[IoSlice<'_>], _more: bool) -> io::Result<usize> {
        turmoil_net::set_current(self.host);
        let mut sent = 0;
        for slice in slices {
            match self.inner.try_write(slice) {
                Ok(len) => sent += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && sent > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }

    fn send_content(&self, content: &dyn Content, position: u64, len: usize) -> io::Result<usize> {
        turmoil_net::set_current(self.host);
        let mut piece = vec![0; len.min(PIECE_BYTES_MAX)];
        content.read_exact_at(&mut piece, position)?;
        self.inner.try_write(&piece)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        turmoil_net::set_current(self.host);
    }
}

/// Waits for bytes and appends them to `into`; 0 if the peer sends no more.
pub async fn read(stream: &mut Stream, into: &mut impl Extend<u8>) -> io::Result<usize> {
    let mut into = pin!(into);
    poll_fn(|cx| stream.poll_read(cx, PIECE_BYTES_MAX, &mut **into)).await
}
