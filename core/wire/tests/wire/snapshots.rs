//! The bytes of every version of every response that the broker sends, so that a change of them is seen.

use super::sample::{Draw, sample};
use super::{bodies, versions};
use std::fmt::Write;
use tidelog_wire::versions::served;
use tidelog_wire::{Reader, ResponseBody, decode_response, encode_response};

#[test]
fn the_bytes_of_each_response_version_stay_as_they_are() {
    for (key, message) in bodies("response").into_iter().filter(|(key, _)| served(*key).is_some()) {
        let mut text = String::new();
        for version in served(key).unwrap().filter(|v| versions(&message).contains(v)) {
            let bytes = sample(&message, version, &mut Draw::Counting(0), false).bytes;
            let body = ResponseBody::decode(key, version, &mut Reader::new(bytes.into())).unwrap();
            let frame = encode_response(key, version, 0x0c0ffee0, &body).to_bytes();
            assert_eq!(decode_response(key, version, frame.slice(4..)), Ok((0x0c0ffee0, body.clone())));

            writeln!(text, "version {version}, {} bytes", frame.len()).unwrap();
            for (row, line) in frame.chunks(32).enumerate() {
                let hex: Vec<String> = line.chunks(4).map(|c| c.iter().map(|b| format!("{b:02x}")).collect()).collect();
                writeln!(text, "{:04x}  {}", row * 32, hex.join(" ")).unwrap();
            }
            if Some(version) == served(key).map(|v| *v.end()) {
                writeln!(text, "\n{body:#?}").unwrap();
            }
        }
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(format!("{key:?}Response"), text);
        });
    }
}
