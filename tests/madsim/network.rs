//! The network: `turmoil-net`'s TCP, carried by one task that gives every packet a delay.
//!
//! Packets of one direction between two hosts keep their order; a cut link keeps them until it is mended, as TCP's
//! retransmission would. Windows, segment sizes and delays come from the seed, so a stream is cut anywhere.

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
use tidelog_sim::random::{Stream as Random, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil_net::shim::tokio::net::{TcpListener, TcpStream};
use turmoil_net::{HostId, KernelConfig, Net, Packet, TcpFlags, TcpSegment, Transport};

/// How often packets move. A segment that could go waits at most so long.
const TICK: Duration = Duration::from_millis(1);
/// The most that one call copies.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// The host of the broker; clients are on the others.
pub const BROKER: usize = 0;
const HOSTS: usize = 6;
/// What a new broker's process adds one to: `turmoil-net` keeps a port while anything of the last process's is open.
const PORT: u16 = 9092;

#[derive(Clone)]
pub struct Network {
    hosts: Vec<HostId>,
    links: Arc<Mutex<Links>>,
}

struct Links {
    random: Random,
    delay_ms_max: u64,
    under_way: BTreeMap<(IpAddr, IpAddr), VecDeque<(u64, Packet)>>,
    cut: BTreeSet<(IpAddr, IpAddr)>,
    /// Where the broker listens, or did.
    port: u16,
    power: Power,
}

/// Of the broker's machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    Off,
    /// It has come back, and knows nothing of connections with ports up to this.
    Again {
        forgotten: u16,
    },
}

pub fn address(host: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, u8::try_from(host + 1).expect("few hosts")])
}

impl Network {
    /// One for each thread.
    pub fn start(seed: u64, log: Log) -> Self {
        let mut random = stream(seed, "network", &[]);
        let window = *random.pick(&[2_000, 16_000, 64_000]);
        let mtu = *random.pick(&[100, 576, 1_500]);
        let config = KernelConfig::default().mtu(mtu).recv_buf_cap(window).send_buf_cap(window);
        // Nothing is lost for good, so nothing is sent twice.
        let mut net = Net::with_config(config.retx_threshold(u32::MAX));
        let hosts = (0..HOSTS).map(|host| net.add_host(address(host))).collect();
        let delay_ms_max = *random.pick(&[1, 4, 20]);
        let links = Links {
            random,
            delay_ms_max,
            under_way: BTreeMap::new(),
            cut: BTreeSet::new(),
            port: PORT,
            power: Power::On,
        };
        let network = Self { hosts, links: Arc::new(Mutex::new(links)) };
        // The network outlives every socket on it.
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

    /// For a new process of the broker.
    pub async fn listen(&self) -> io::Result<Listener> {
        let (host, port) = (self.hosts[BROKER], self.links().next_port());
        let inner = OnHost { host, future: Box::pin(TcpListener::bind(("0.0.0.0", port))) }.await?;
        Ok(Listener { host, inner })
    }

    /// To the broker.
    pub async fn connect(&self, host: usize) -> io::Result<Stream> {
        let (host, to) = (self.hosts[host], SocketAddr::new(address(BROKER), self.links().port));
        let inner = OnHost { host, future: Box::pin(TcpStream::connect(to)) }.await?;
        Ok(Stream { host, inner })
    }

    /// Nothing passes from one host to the other until [`mend`](Self::mend).
    pub fn cut(&self, from: usize, to: usize) {
        self.links().cut.insert((address(from), address(to)));
    }

    pub fn mend(&self) {
        self.links().cut.clear();
    }

    /// The broker's machine loses its power: what is under way is lost, and nobody is told.
    pub fn power_off(&self) {
        let links = &mut *self.links();
        links.power = Power::Off;
        links.under_way.retain(|(from, to), _| *from != address(BROKER) && *to != address(BROKER));
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().expect("one thread")
    }

    fn take_up(&self, packets: &mut Vec<Packet>) {
        let links = &mut *self.links();
        for packet in packets.drain(..) {
            if !links.is_of_the_dead(packet.src, segment(&packet).src_port) {
                links.send(packet);
            }
        }
    }

    fn arrived(&self) -> Vec<Packet> {
        let (links, now) = (&mut *self.links(), crate::now_ns());
        let mut arrived = Vec::new();
        for (way, link) in &mut links.under_way {
            while !links.cut.contains(way) && link.front().is_some_and(|(at, _)| *at <= now) {
                arrived.extend(link.pop_front().map(|(_, packet)| packet));
            }
        }
        arrived.retain(|packet| {
            let for_the_dead = links.is_of_the_dead(packet.dst, segment(packet).dst_port);
            if for_the_dead && links.power != Power::Off && !segment(packet).flags.rst {
                links.send(reset(packet));
            }
            !for_the_dead
        });
        arrived
    }
}

impl Links {
    fn next_port(&mut self) -> u16 {
        if self.power == Power::Off {
            self.power = Power::Again { forgotten: self.port };
        }
        self.port += 1;
        self.port
    }

    /// Whether a connection of `ip` with `port` was the broker's when its machine lost its power.
    fn is_of_the_dead(&self, ip: IpAddr, port: u16) -> bool {
        ip == address(BROKER)
            && match self.power {
                Power::On => false,
                Power::Off => true,
                Power::Again { forgotten } => port <= forgotten,
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

/// What a machine says to who speaks of a connection that it does not know.
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

/// Whatever is done in `future` is done on `host`.
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

/// A socket, for the broker and for clients. Dropped, it closes as Linux does it: with a reset if something was not
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

    /// Appends what has come to `into`, `most` bytes at the most; 0: nothing will come any more.
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

    /// Closes the connection with a reset: waits until there is something that will never be read. (A closed socket
    /// to which data come would reset too; `turmoil-net` keeps them.)
    pub async fn reset(self) {
        let unread = poll_fn(|cx| {
            turmoil_net::set_current(self.host);
            self.inner.poll_peek(cx, &mut ReadBuf::new(&mut [0]))
        });
        // Who has asked for nothing gets nothing, and closes with a FIN.
        let _ = timeout(Duration::from_secs(1), unread).await;
    }

    /// Sends no more, and goes on reading.
    pub async fn half_close(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            turmoil_net::set_current(self.host);
            Pin::new(&mut self.inner).poll_shutdown(cx)
        })
        .await
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

/// Reads until there is something; 0: nothing will come any more.
pub async fn read(stream: &mut Stream, into: &mut impl Extend<u8>) -> io::Result<usize> {
    let mut into = pin!(into);
    poll_fn(|cx| stream.poll_read(cx, PIECE_BYTES_MAX, &mut **into)).await
}
