//! Where messages end on a connection that carries many, as a profile's [frame] says. Octets as they came in; whole messages,
//! and answers as they go out, out.

use thiserror::Error;

use super::RECORD_MAX;

/// Where one message ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Behind these octets, which belong to it: for XML its end tag.
    End(Vec<u8>),
    /// So many octets stand before it and tell its length, big-endian, without themselves.
    Length(u8),
}

/// A message that nobody will read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a message is longer than {RECORD_MAX} octets")]
pub struct TooLong;

impl Frame {
    /// The first whole message, and how many octets it took. `looked_at`: so far no end was found; 0 with a new message.
    ///
    /// **Errors**: it is longer than a record may be.
    pub fn cut(&self, octets: &[u8], looked_at: &mut usize) -> Result<Option<(Vec<u8>, usize)>, TooLong> {
        match self {
            Frame::End(end) => {
                let from = looked_at.saturating_sub(end.len().saturating_sub(1));
                let found = octets[from..].windows(end.len()).position(|window| window == end.as_slice());
                match found.map(|at| from + at + end.len()) {
                    // What stands between two messages is of neither.
                    Some(whole) if whole <= RECORD_MAX => {
                        Ok(Some((octets[..whole].trim_ascii_start().to_vec(), whole)))
                    }
                    None if octets.len() <= RECORD_MAX => {
                        *looked_at = octets.len();
                        Ok(None)
                    }
                    _ => Err(TooLong),
                }
            }
            Frame::Length(count) => {
                let head = usize::from(*count);
                let Some(told) = octets.get(..head) else { return Ok(None) };
                let length = told.iter().fold(0usize, |length, octet| length << 8 | usize::from(*octet));
                if length > RECORD_MAX {
                    return Err(TooLong);
                }
                Ok(octets.get(head..head + length).map(|message| (message.to_vec(), head + length)))
            }
        }
    }

    /// An answer as it goes out.
    pub fn framed(&self, body: &[u8]) -> Vec<u8> {
        match self {
            Frame::End(_) => body.to_vec(),
            Frame::Length(count) => {
                let length = (body.len() as u64).to_be_bytes();
                [&length[length.len() - usize::from(*count)..], body].concat()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_ends_where_its_frame_says() {
        let end = Frame::End(b"</event>".to_vec());
        let octets = b"<event>1</event>\n<event>2</event><ev";
        assert_eq!(end.cut(octets, &mut 0), Ok(Some((b"<event>1</event>".to_vec(), 16))));
        assert_eq!(end.cut(&octets[16..], &mut 0), Ok(Some((b"<event>2</event>".to_vec(), 17))));
        assert_eq!(end.cut(&octets[33..], &mut 0), Ok(None));
        assert!(end.cut(&vec![b'x'; RECORD_MAX + 1], &mut 0).is_err(), "an end that never comes");
        let length = Frame::Length(2);
        assert_eq!(length.cut(&[0, 3, b'a', b'b', b'c', 0], &mut 0), Ok(Some((b"abc".to_vec(), 5))));
        assert_eq!(length.cut(&[0, 3, b'a', b'b'], &mut 0), Ok(None));
        assert_eq!(length.cut(&[0], &mut 0), Ok(None));
        assert!(Frame::Length(4).cut(&[0xff; 8], &mut 0).is_err(), "longer than a record");
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_they_are_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>().prop_filter("no end, no space", |b| *b != b';' && !b.is_ascii_whitespace()), 0..40), 0..8),
            step in 1usize..50,
            by_length in any::<bool>(),
        ) {
            let frame = if by_length { Frame::Length(3) } else { Frame::End(b";".to_vec()) };
            let wire: Vec<u8> = messages.iter().flat_map(|message| match by_length {
                true => frame.framed(message),
                false => [message.as_slice(), b";"].concat(),
            }).collect();
            let (mut held, mut looked_at, mut found) = (Vec::new(), 0, Vec::new());
            for piece in wire.chunks(step) {
                held.extend_from_slice(piece);
                while let Some((message, taken)) = frame.cut(&held, &mut looked_at).expect("short messages") {
                    held.drain(..taken);
                    looked_at = 0;
                    found.push(message);
                }
            }
            let sent: Vec<Vec<u8>> = messages.iter().map(|message| match by_length {
                true => message.clone(),
                false => [message.as_slice(), b";"].concat(),
            }).collect();
            prop_assert_eq!(found, sent);
            prop_assert!(held.is_empty());
        }
    }
}
