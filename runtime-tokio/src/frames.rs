//! Splits a stream of bytes into frames: four bytes of length, then as many bytes.
//!
//! A length is checked before memory is allocated for the frame, and the buffer grows with the bytes that arrive: a
//! peer that announces 100 MB and sends nothing costs nothing. A frame is a slice of the buffer it was read into, never
//! a copy.

use bytes::buf::Limit;
use bytes::{BufMut, Bytes, BytesMut};
use tidelog_core::wire::{FRAME_LENGTH_BYTES, FrameLength, FrameLengthError};

/// The least room made for a read into an empty buffer, so that small requests which were sent together are read
/// together.
pub const ROOM_BYTES_MIN: usize = 16 << 10;
/// The most room made for bytes that have not arrived, unless more than that is buffered already.
const ROOM_BYTES_MAX: usize = 1 << 20;

/// A buffer for the bytes of a stream, from which whole frames are taken.
pub struct FrameReader {
    buffer: BytesMut,
    /// `socket.request.max.bytes`
    frame_bytes_max: i32,
    /// The size of the last frame, including its length field. The next one probably has the same size. A read of
    /// exactly that size begins and ends with a frame, so no bytes have to be moved.
    last_bytes: usize,
    /// How many bytes the buffer may hold. The caller must not read while it holds as many.
    held_bytes_max: usize,
}

impl FrameReader {
    pub fn new(frame_bytes_max: i32) -> Self {
        Self { buffer: BytesMut::new(), frame_bytes_max, last_bytes: 0, held_bytes_max: usize::MAX }
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

    /// Whether [`next_frame`](Self::next_frame) has a frame or an error.
    pub fn has_frame(&self) -> bool {
        match self.announced() {
            Ok(Some(len)) => self.buffer.len() >= FRAME_LENGTH_BYTES + len,
            Ok(None) => false,
            Err(_) => true,
        }
    }

    /// The buffer with room for the next bytes. Call it after [`next_frame`](Self::next_frame) has returned `None`.
    pub fn room(&mut self) -> Limit<&mut BytesMut> {
        let held = self.buffer.len();
        let most = self.held_bytes_max.saturating_sub(held).max(1);
        let missing = match self.announced() {
            Ok(Some(len)) => (FRAME_LENGTH_BYTES + len).saturating_sub(held),
            _ => self.last_bytes.saturating_sub(held),
        };
        // Room for a large frame grows with the bytes that have arrived: at most it doubles.
        let wanted = missing.min(ROOM_BYTES_MAX.max(held)).max(if held == 0 { ROOM_BYTES_MIN } else { 1 }).min(most);
        if self.buffer.capacity() - held < wanted {
            self.buffer.reserve(wanted);
        }
        (&mut self.buffer).limit(most)
    }

    /// Limits how many bytes the buffer may hold. Bytes that it holds already stay.
    pub fn hold_at_most(&mut self, bytes: usize) {
        self.held_bytes_max = bytes;
    }

    /// Whether the frame that has begun, including its length field, is at most this large. True while the length is
    /// unknown.
    pub fn fits_in(&self, bytes: usize) -> bool {
        self.announced().map_or(true, |len| len.is_none_or(|len| FRAME_LENGTH_BYTES + len <= bytes))
    }

    /// How many bytes of the frame that has begun are still to arrive.
    pub fn missing_bytes(&self) -> usize {
        let len = self.announced().ok().flatten().unwrap_or(0);
        (FRAME_LENGTH_BYTES + len).saturating_sub(self.buffer.len())
    }

    /// Frees the buffer's memory if the buffer is empty, so that an idle connection holds none.
    pub fn release_if_empty(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// How many bytes are in the buffer.
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    fn announced(&self) -> Result<Option<usize>, FrameLengthError> {
        match self.buffer.first_chunk::<FRAME_LENGTH_BYTES>() {
            Some(bytes) => FrameLength::parse(*bytes, self.frame_bytes_max).map(|len| Some(len.bytes())),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `stream` in pieces. Each is at most as large as `size` says and as the room allows.
    fn read(stream: &[u8], mut size: impl FnMut() -> usize) -> Vec<Bytes> {
        let (mut reader, mut frames, mut rest) = (FrameReader::new(1 << 20), Vec::new(), stream);
        loop {
            while let Some(frame) = reader.next_frame().unwrap() {
                frames.push(frame);
            }
            if rest.is_empty() {
                assert_eq!(reader.buffered_bytes(), 0);
                return frames;
            }
            let mut room = reader.room();
            let len = size().min(rest.len()).min(room.get_ref().capacity() - room.get_ref().len());
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
        assert!(reader.room().get_ref().capacity() <= 2 * ROOM_BYTES_MAX);

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
    fn room_is_made_for_no_more_than_may_be_held() {
        let mut reader = FrameReader::new(1 << 20);
        reader.room().put_i32(500_000);
        assert_eq!((reader.fits_in(500_004), reader.fits_in(500_003), reader.missing_bytes()), (true, false, 500_000));
        reader.hold_at_most(10);
        assert_eq!(reader.room().remaining_mut(), 6);
        reader.hold_at_most(usize::MAX);
        assert!(reader.room().get_ref().capacity() >= 500_004);
    }

    #[test]
    fn equal_frames_are_read_without_moving_a_byte() {
        let mut reader = FrameReader::new(1 << 20);
        let frame = vec![7; 65_000];
        for _ in 0..3 {
            let mut room = reader.room();
            room.put_i32(frame.len() as i32);
            let begun = room.get_ref().len();
            room.put_slice(&frame[..1000]);
            let place = room.get_ref().as_ptr();
            assert_eq!(reader.next_frame(), Ok(None));
            let mut room = reader.room();
            room.put_slice(&frame[1000..]);
            let moved = room.get_ref().as_ptr() != place;
            assert!(reader.next_frame().unwrap().is_some());
            reader.release_if_empty();
            // Only the first frame may have moved: nothing was known about its size.
            assert!(!moved || begun == 4);
        }
    }
}
