//! Links over loopback sockets to peers that the tests play, with a scripted machine in place of the broker.

use super::*;
use crate::admission::ResolvedLimits;
use crate::disk::Memory;
use crate::door::Machine;
use crate::service::{Fatal, Service};
use crate::tcp::TcpConnector;
use std::collections::VecDeque;
use std::future::pending;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, mpsc};
use std::thread::{JoinHandle, spawn, yield_now};
use std::time::Duration;
use tidelog_core::config::BrokerConfig;
use tidelog_core::io::{Input, LinkAnswer, Outbox, Output};
use tidelog_core::time::{Mono, Now};
use tidelog_core::wire::messages::{VoteRequest, VoteResponse};
use tidelog_core::wire::{ApiKey, RequestHeader, ResponseBody, encode_response};
use tokio::runtime::Runtime;

/// Only reached if a test hangs.
const PATIENCE: Duration = Duration::from_secs(60);
const LINK: LinkId = LinkId(7);

/// Puts out what the test has ordered, and tells the test what happens on links. It handles an answer once `gate` is
/// unlocked.
struct Script {
    orders: Arc<Mutex<VecDeque<Output>>>,
    told: mpsc::Sender<(LinkId, LinkEvent)>,
    gate: Arc<Mutex<()>>,
}

impl Machine for Script {
    fn handle(&mut self, _: Now, input: Input, out: &mut Outbox) {
        match input {
            Input::Boot => out.outputs.push(Output::Ready),
            Input::Tick => out.outputs.extend(self.orders.lock().unwrap().drain(..)),
            Input::Link(link, event) => {
                let is_answer = matches!(event, LinkEvent::Answer(_));
                let _ = self.told.send((link, event));
                if is_answer {
                    drop(self.gate.lock().unwrap());
                }
            }
            Input::Stop => out.outputs.push(Output::Stopped),
            other => panic!("{other:?}"),
        }
    }

    fn deadline(&self) -> Option<Mono> {
        None
    }
}

struct Fixture {
    runtime: Runtime,
    service: Arc<Service>,
    orders: Arc<Mutex<VecDeque<Output>>>,
    told: mpsc::Receiver<(LinkId, LinkEvent)>,
    gate: Arc<Mutex<()>>,
}

impl Fixture {
    fn new(connector: impl Connector) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let config = BrokerConfig::default();
        let (orders, gate) = (Arc::default(), Arc::default());
        let (sender, told) = mpsc::channel();
        let script = Script { orders: Arc::clone(&orders), told: sender, gate: Arc::clone(&gate) };
        let limits = ResolvedLimits::of(&config, |_| Err(io::ErrorKind::NotFound.into())).unwrap();
        let service = {
            let _inside = runtime.enter();
            let memory = Box::new(Arc::new(Memory::new(u64::MAX)));
            Arc::new(Service::new(&config, limits, Box::new(script), memory, connector))
        };
        runtime.block_on(service.boot(|_| Ok::<(), Fatal>(()))).unwrap();
        Self { runtime, service, orders, told, gate }
    }

    /// With a link that is open.
    fn connected(peer: SocketAddr) -> Self {
        let fixture = Self::new(TcpConnector::default());
        fixture.connect(peer);
        assert!(matches!(fixture.event(), LinkEvent::Opened));
        fixture
    }

    fn order(&self, output: Output) {
        self.orders.lock().unwrap().push_back(output);
        self.service.shared().door.submit(Message::Input(Input::Tick));
    }

    fn connect(&self, peer: SocketAddr) {
        self.order(Output::Connect(LINK, Address::new(peer.ip().to_string(), peer.port())));
    }

    fn ask(&self, correlation_id: i32) {
        self.order(request(correlation_id));
    }

    /// Asks from another thread. The thread that asks may run the core on whatever comes meanwhile.
    fn ask_elsewhere(&self, correlation_ids: [i32; 2]) {
        self.orders.lock().unwrap().extend(correlation_ids.map(request));
        let service = self.service.clone();
        spawn(move || service.shared().door.submit(Message::Input(Input::Tick)));
    }

    fn event(&self) -> LinkEvent {
        let (link, event) = self.told.recv_timeout(PATIENCE).expect("an event");
        assert_eq!(link, LINK);
        event
    }

    fn answer(&self) -> LinkAnswer {
        match self.event() {
            LinkEvent::Answer(answer) => *answer,
            other => panic!("{other:?}"),
        }
    }

    fn lost(&self) -> String {
        match self.event() {
            LinkEvent::Lost(why) => why,
            other => panic!("{other:?}"),
        }
    }

    fn held(&self) -> usize {
        self.service.shared().budget.held()
    }

    fn await_nothing_held(&self) {
        while self.held() > 0 {
            yield_now();
        }
    }
}

fn request(correlation_id: i32) -> Output {
    let header = RequestHeader { api_key: ApiKey::Vote, api_version: 1, correlation_id, client_id: None };
    Output::Send(LINK, Box::new(PeerRequest { header, body: VoteRequest::default().into() }))
}

/// Accepts one connection, and does with it what the test wants.
fn peer<T: Send + 'static>(serve: impl FnOnce(TcpStream) -> T + Send + 'static) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (address, spawn(move || serve(listener.accept().unwrap().0)))
}

/// The next request. Gives its correlation id.
fn read_request(stream: &mut TcpStream) -> i32 {
    let mut len = [0; 4];
    stream.read_exact(&mut len).unwrap();
    let mut frame = vec![0; u32::from_be_bytes(len) as usize];
    stream.read_exact(&mut frame).unwrap();
    i32::from_be_bytes(frame[4..8].try_into().unwrap())
}

fn vote(correlation_id: i32, error_code: i16) -> Vec<u8> {
    let body = VoteResponse { error_code, ..VoteResponse::default() }.into();
    encode_response(ApiKey::Vote, 1, correlation_id, &body).to_bytes().to_vec()
}

fn error_code(answer: &LinkAnswer) -> (i32, i16) {
    let Ok((correlation_id, ResponseBody::Vote(vote))) = &answer.read else { panic!("{answer:?}") };
    (*correlation_id, vote.error_code)
}

/// Reads until the other end has closed.
fn read_to_end(stream: &mut TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn a_peer_answers_and_the_link_stays_open_until_the_core_hangs_up() {
    let (address, peer) = peer(|mut stream| {
        for error_code in [5, 6] {
            let asked = read_request(&mut stream);
            stream.write_all(&vote(asked, error_code)).unwrap();
        }
        read_to_end(&mut stream);
    });
    let fixture = Fixture::connected(address);
    for (correlation_id, code) in [(3, 5), (4, 6)] {
        fixture.ask(correlation_id);
        assert_eq!(error_code(&fixture.answer()), (correlation_id, code));
    }
    fixture.await_nothing_held();
    fixture.order(Output::HangUp(LINK));
    peer.join().unwrap();
}

#[test]
fn an_answer_counts_in_the_budget_until_the_core_has_handled_it() {
    let (address, peer) = peer(|mut stream| {
        let asked = [read_request(&mut stream), read_request(&mut stream)];
        let answers = asked.map(|asked| vote(asked, 0));
        stream.write_all(&answers.concat()).unwrap();
        read_to_end(&mut stream);
        answers[0].len()
    });
    let fixture = Fixture::connected(address);
    let gate = fixture.gate.lock().unwrap();
    // This thread must not run the core, which waits for the gate.
    fixture.ask_elsewhere([1, 2]);
    assert_eq!(error_code(&fixture.answer()), (1, 0));
    let held = fixture.held();
    drop(gate);
    assert_eq!(error_code(&fixture.answer()), (2, 0));
    fixture.await_nothing_held();
    fixture.order(Output::HangUp(LINK));
    assert!(held >= peer.join().unwrap(), "{held}");
}

#[test]
fn a_peer_that_never_answers_sees_the_end_when_the_core_hangs_up_and_so_it_does_at_a_stop() {
    for stops in [false, true] {
        let (address, peer) = peer(|mut stream| {
            read_request(&mut stream);
            read_to_end(&mut stream);
        });
        let fixture = Fixture::connected(address);
        fixture.ask(1);
        match stops {
            true => fixture.runtime.block_on(fixture.service.stop()).unwrap(),
            false => fixture.order(Output::HangUp(LINK)),
        }
        peer.join().unwrap();
        assert!(fixture.told.try_recv().is_err(), "nothing is told of a link that was hung up");
    }
}

#[test]
fn a_reset_and_an_end_are_told_with_their_reason() {
    let (address, resets) = peer(|mut stream| {
        // Closing a socket whose bytes were not read resets the connection.
        stream.read_exact(&mut [0]).unwrap();
    });
    let fixture = Fixture::connected(address);
    fixture.ask(1);
    assert!(fixture.lost().starts_with("Connection reset by peer"));
    resets.join().unwrap();

    let (address, ends) = peer(drop);
    let fixture = Fixture::connected(address);
    assert_eq!(fixture.lost(), "the other end closed the connection");
    ends.join().unwrap();
    // What is still sent on it goes nowhere.
    fixture.ask(1);
}

#[test]
fn another_protocol_a_huge_frame_and_an_answer_to_nothing_end_the_link() {
    let answers: [(&[u8], &str); 4] = [
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "it does not answer in Kafka's protocol: this looks like an HTTP response",
        ),
        (
            &[0x7f, 0, 0, 0],
            "it does not answer in Kafka's protocol: a response of 2130706432 bytes was announced, the limit is 121634816",
        ),
        (
            &[0xff; 4],
            "it does not answer in Kafka's protocol: a response of -1 bytes was announced, the limit is 121634816",
        ),
        (&[0; 4], "it does not answer in Kafka's protocol: a response came that belongs to no request"),
    ];
    for (answer, why) in answers {
        let (address, peer) = peer(move |mut stream| {
            stream.write_all(answer).unwrap();
            read_to_end(&mut stream);
        });
        let fixture = Fixture::connected(address);
        assert_eq!(fixture.lost(), why);
        peer.join().unwrap();
        assert_eq!(fixture.held(), 0);
    }
}

#[test]
fn an_answer_that_cannot_be_decoded_is_told_as_one() {
    let (address, peer) = peer(|mut stream| {
        read_request(&mut stream);
        stream.write_all(&[0, 0, 0, 2, 9, 9]).unwrap();
        read_to_end(&mut stream);
    });
    let fixture = Fixture::connected(address);
    fixture.ask(1);
    assert!(fixture.answer().read.is_err());
    fixture.order(Output::HangUp(LINK));
    peer.join().unwrap();
}

#[test]
fn a_large_answer_takes_memory_as_it_arrives_and_frees_it_when_the_link_breaks() {
    let (address, peer) = peer(|mut stream| {
        read_request(&mut stream);
        stream.write_all(&100_000_000i32.to_be_bytes()).unwrap();
        stream.write_all(&[0; 100_000]).unwrap();
        stream
    });
    let fixture = Fixture::connected(address);
    fixture.ask(1);
    while fixture.held() < 100_004 {
        yield_now();
    }
    assert_eq!(fixture.held(), 100_004);
    drop(peer.join().unwrap());
    fixture.lost();
    fixture.await_nothing_held();
}

#[test]
fn where_nobody_listens_the_link_is_lost() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let fixture = Fixture::new(TcpConnector::default());
    fixture.connect(nobody);
    assert!(fixture.lost().starts_with("Connection refused"));
    fixture.order(Output::Connect(LINK, Address::new("no-such-host.invalid", 1)));
    fixture.lost();
}

/// Opens no connection, and tells when an attempt is given up.
struct Hangs(Arc<()>);

impl Connector for Hangs {
    type Socket = tokio::net::TcpStream;

    fn connect(&self, _: &Address, _: usize) -> Connecting<Self::Socket> {
        let attempt = self.0.clone();
        Box::pin(async move {
            let _attempt = attempt;
            pending().await
        })
    }
}

#[test]
fn an_attempt_to_connect_that_hangs_ends_when_the_core_hangs_up() {
    let attempts = Arc::new(());
    let fixture = Fixture::new(Hangs(attempts.clone()));
    fixture.connect(([127, 0, 0, 1], 9).into());
    while Arc::strong_count(&attempts) < 3 {
        yield_now();
    }
    fixture.order(Output::HangUp(LINK));
    while Arc::strong_count(&attempts) > 2 {
        yield_now();
    }
    assert!(fixture.told.try_recv().is_err());
}
