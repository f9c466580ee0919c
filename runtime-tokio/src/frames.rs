//! Frames out of a stream of bytes: four bytes of length, then as many bytes.
//!
//! A length is checked before anything is allocated for it, and memory follows the bytes that have arrived: who
//! announces 100 MB and sends nothing costs nothing. A frame is a slice of the buffer it was read into, never a copy.

use bytes::{Bytes, BytesMut};
use tidelog_core::wire::{FRAME_LENGTH_BYTES, FrameLength, FrameLengthError};

/// The least room for a read: small requests that were sent together are read together.
const ROOM_BYTES_MIN: usize = 16 << 10;
/// The most room made ahead of the bytes.
const ROOM_BYTES_MAX: usize = 1 << 20;

pub struct FrameReader {
    buffer: BytesMut,
    /// `socket.request.max.bytes`
    max: i32,
    /// The last frame with its length: the next one is probably like it, and a read of exactly that size begins
    /// and ends with a frame, so that nothing has to be moved.
    last_bytes: usize,
}

impl FrameReader {
    pub fn new(max: i32) -> Self {
        Self { buffer: BytesMut::new(), max, last_bytes: 0 }
    }

    /// The next whole frame, without its length.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameLengthError> {
        let Some(len) = self.announced()? else { return Ok(None) };
        if self.buffer.len() < FRAME_LENGTH_BYTES + len {
            return Ok(None);
        }
        self.last_bytes = FRAME_LENGTH_BYTES + len;
        Ok(Some(self.buffer.split_to(self.last_bytes).freeze().split_off(FRAME_LENGTH_BYTES)))
    }

    /// Whether [`next_frame`](Self::next_frame) has something to say: a frame, or that there will be none.
    pub fn has_frame(&self) -> bool {
        match self.announced() {
            Ok(Some(len)) => self.buffer.len() >= FRAME_LENGTH_BYTES + len,
            Ok(None) => false,
            Err(_) => true,
        }
    }

    /// The buffer with room for what comes next, to be read into. Call it after [`next_frame`](Self::next_frame)
    /// has answered that there is none.
    pub fn room(&mut self) -> &mut BytesMut {
        let held = self.buffer.len();
        let missing = match self.announced() {
            Ok(Some(len)) => (FRAME_LENGTH_BYTES + len).saturating_sub(held),
            _ => self.last_bytes.saturating_sub(held),
        };
        // A frame that is larger than one step grows with the bytes that have come: at most by as many again.
        let wanted = missing.min(ROOM_BYTES_MAX.max(held)).max(if held == 0 { ROOM_BYTES_MIN } else { 1 });
        if self.buffer.capacity() - held < wanted {
            self.buffer.reserve(wanted);
        }
        &mut self.buffer
    }

    /// Gives the memory of an empty buffer back: an idle connection holds none.
    pub fn rest(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// The bytes of a frame that is not whole yet.
    pub fn held_bytes(&self) -> usize {
        self.buffer.len()
    }

    fn announced(&self) -> Result<Option<usize>, FrameLengthError> {
        match self.buffer.first_chunk::<FRAME_LENGTH_BYTES>() {
            Some(bytes) => FrameLength::parse(*bytes, self.max).map(|len| Some(len.bytes())),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;

    /// Feeds `stream` in pieces of at most the room there is and at most what `sizes` gives.
    fn read(stream: &[u8], mut size: impl FnMut() -> usize) -> Vec<Bytes> {
        let (mut reader, mut frames, mut rest) = (FrameReader::new(1 << 20), Vec::new(), stream);
        loop {
            while let Some(frame) = reader.next_frame().unwrap() {
                frames.push(frame);
            }
            if rest.is_empty() {
                assert_eq!(reader.held_bytes(), 0);
                return frames;
            }
            let room = reader.room();
            let len = size().min(rest.len()).min(room.capacity() - room.len());
            assert!(len > 0);
            room.put_slice(&rest[..len]);
            rest = &rest[len..];
        }
    }

    #[test]
    fn frames_are_the_same_wherever_the_stream_is_cut() {
        let bodies: Vec<Vec<u8>> =
            [0, 1, 3, 70_000, 5, 16_380, 16_381, 200_000, 2].iter().map(|len| vec![*len as u8; *len]).collect();
        let mut stream = Vec::new();
        for body in &bodies {
            stream.put_i32(body.len() as i32);
            stream.put_slice(body);
        }
        let mut seed = 1u32;
        let random = move || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) as usize % 5000 + 1
        };
        assert_eq!(read(&stream, || usize::MAX), bodies);
        assert_eq!(read(&stream, || 1), bodies);
        assert_eq!(read(&stream, || 4), bodies);
        assert_eq!(read(&stream, random), bodies);
    }

    #[test]
    fn an_announced_length_costs_nothing_and_an_oversized_or_negative_one_is_refused() {
        let mut reader = FrameReader::new(100 << 20);
        reader.room().put_i32(100 << 20);
        assert_eq!(reader.next_frame(), Ok(None));
        assert!(reader.room().capacity() <= 2 * ROOM_BYTES_MAX);

        for (len, text) in [
            (101, "a request of 101 bytes is larger than socket.request.max.bytes = 100"),
            (-1, "a request of -1 bytes: the length is negative, so the peer does not speak Kafka's protocol"),
        ] {
            let mut reader = FrameReader::new(100);
            reader.room().put_i32(len);
            assert_eq!(reader.next_frame().unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn equal_frames_are_read_without_moving_a_byte() {
        let mut reader = FrameReader::new(1 << 20);
        let frame = vec![7; 65_000];
        for _ in 0..3 {
            let room = reader.room();
            room.put_i32(frame.len() as i32);
            let begun = room.len();
            room.put_slice(&frame[..1000]);
            let place = room.as_ptr();
            assert_eq!(reader.next_frame(), Ok(None));
            let room = reader.room();
            room.put_slice(&frame[1000..]);
            let moved = room.as_ptr() != place;
            assert!(reader.next_frame().unwrap().is_some());
            reader.rest();
            // Only the first, whose size nobody could guess.
            assert!(!moved || begun == 4);
        }
    }
}
