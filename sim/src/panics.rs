//! Catches panics of the core with their text and place, so that a panic can be compared and shrunk like any other
//! failure.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};

std::thread_local! {
    /// Where the last panic of this thread was. Only the panic hook gets the place; what is caught has only the text.
    static PLACE: Cell<Option<String>> = const { Cell::new(None) };
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// From now on [`catch`] knows the place of every panic. `said` is called after each panic that was reported, which are
/// those of threads that are not [`quiet`].
pub fn install(said: impl Fn() + Send + Sync + 'static) {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let place = info.location().map(|location| format!("{}:{}", location.file(), location.line()));
        PLACE.set(place);
        if !QUIET.get() {
            report(info);
            said();
        }
    }));
}

/// Whether panics of this thread are left unreported, because they are expected or are reported otherwise.
pub fn quiet(quiet: bool) {
    QUIET.set(quiet);
}

/// The result of `work`, or the text of its panic, with its place if [`install`] was called.
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload| match PLACE.take() {
        Some(place) => format!("{} (at {place})", words(payload.as_ref())),
        None => words(payload.as_ref()).to_string(),
    })
}

fn words(payload: &(dyn Any + Send)) -> &str {
    match payload.downcast_ref::<String>() {
        Some(text) => text,
        None => payload.downcast_ref::<&str>().copied().unwrap_or("a panic without words"),
    }
}

/// Errors as one text.
pub(crate) fn listed(errors: &[impl std::fmt::Display]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A message with every number in it as `#`. Two panics of one cause have this in common.
pub(crate) fn without_numbers(text: &str) -> String {
    let mut plain = String::new();
    for char in text.chars().take(200) {
        match char {
            '0'..='9' if plain.ends_with('#') => {}
            '0'..='9' => plain.push('#'),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_known_by_its_words() {
        quiet(true);
        let words = catch(|| panic!("batch {} of {}", 7, 12)).map(|()| 0);
        assert!(words.clone().is_err_and(|words| words.starts_with("batch 7 of 12")), "{words:?}");
        assert_eq!(catch(|| 5), Ok(5));
    }

    #[test]
    fn numbers_in_a_message_do_not_tell_two_panics_apart() {
        assert_eq!(without_numbers("offset 17 > 4 (at a.rs:120)"), "offset # > # (at a.rs:#)");
    }
}
