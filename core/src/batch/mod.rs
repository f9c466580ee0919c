//! Record batches, magic 2.
#[derive(Debug)]
pub struct Checked {}
