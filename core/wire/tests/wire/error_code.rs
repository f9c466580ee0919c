//! The table of error codes.

use tidelog_wire::ErrorCode;

#[test]
fn the_codes_are_kafkas_without_a_gap() {
    let codes: Vec<i16> = ErrorCode::ALL.iter().map(|error| error.code()).collect();
    assert_eq!(codes, (-1..=133).collect::<Vec<i16>>());
    for &error in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_code(error.code()), Some(error));
        let name: String = error.name().split('_').map(|w| w[..1].to_string() + &w[1..].to_lowercase()).collect();
        assert_eq!(name, format!("{error:?}"));
    }
    assert_eq!(ErrorCode::from_code(134), None);
}
