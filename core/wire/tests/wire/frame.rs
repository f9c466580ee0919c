//! The length in front of a frame.

use tidelog_wire::FrameLength;

#[test]
fn a_length_is_refused_when_negative_or_above_the_limit() {
    assert_eq!(FrameLength::check(100, 100).map(FrameLength::bytes), Ok(100));
    assert_eq!(FrameLength::check(0, 100).map(FrameLength::bytes), Ok(0));
    let oversized = FrameLength::check(101, 100).unwrap_err();
    insta::assert_snapshot!(oversized, @"a request of 101 bytes is larger than socket.request.max.bytes = 100");
    let negative = FrameLength::parse([0xff; 4], 100).unwrap_err();
    insta::assert_snapshot!(negative, @"a request of -1 bytes: the length is negative, so the peer does not speak Kafka's protocol");
}

#[test]
fn the_first_bytes_of_other_protocols_are_recognised() {
    let refused = |bytes: &[u8; 4]| FrameLength::parse(*bytes, 104_857_600).unwrap_err().to_string();
    insta::assert_snapshot!([refused(&[0x16, 3, 1, 2]), refused(b"GET "), refused(b"SSH-"), refused(b"EHLO")].join("\n"), @r"
    this looks like a TLS handshake; this listener speaks the Kafka protocol in plain text
    this looks like an HTTP request; this listener speaks the Kafka protocol in plain text
    this looks like SSH; this listener speaks the Kafka protocol in plain text
    a request of 1162366031 bytes is larger than socket.request.max.bytes = 104857600
    ");
    for line in ["GET / HTTP/1.1", "POST /topics HTTP/1.1", "PUT / HTTP/1.1", "PRI * HTTP/2.0"] {
        let first = *line.as_bytes().first_chunk().unwrap();
        assert!(refused(&first).contains("an HTTP request"), "{line}");
    }
}
