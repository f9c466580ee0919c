//! Prints the scenario of an input of the target `scenarios`, in the format that `tidelog-sim replay` reads.

use libfuzzer_sys::arbitrary::{Arbitrary, Unstructured};
use tidelog_sim::scenario::Scenario;

fn main() {
    let path = std::env::args().nth(1).expect("the path of an input");
    let input = std::fs::read(path).expect("a file that can be read");
    let (seed, chosen) =
        <(u64, &[u8])>::arbitrary_take_rest(Unstructured::new(&input)).expect("any bytes are an input");
    println!("{}", serde_json::to_string_pretty(&Scenario::chosen(seed, chosen)).expect("a scenario is data"));
}
