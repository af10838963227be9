//! Random bits, drawn from the system for several uses at once: a call of the system costs more than the bits that it gives.

use std::cell::RefCell;

use zeroize::Zeroize as _;

/// How many bytes are drawn at once. The system gives as many whole, without being interrupted by a signal.
const DRAWN: usize = 256;

/// What a thread has drawn and not used.
struct Drawn {
    bytes: [u8; DRAWN],
    left: usize,
}

thread_local! {
    static UNUSED: RefCell<Drawn> = const { RefCell::new(Drawn { bytes: [0; DRAWN], left: 0 }) };
}

/// Fills bytes with random bits that nobody can guess. Each bit is used once, and is gone from memory then.
///
/// # Errors
/// If the system gives none.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), getrandom::Error> {
    UNUSED.with_borrow_mut(|drawn| {
        if drawn.left < bytes.len() {
            drawn.left = 0;
            getrandom::fill(&mut drawn.bytes)?;
            drawn.left = DRAWN;
        }
        let from = drawn.left.checked_sub(bytes.len()).and_then(|from| drawn.bytes.get_mut(from..drawn.left));
        // More than is drawn at once.
        let Some(used) = from else { return getrandom::fill(bytes) };
        bytes.copy_from_slice(used);
        used.zeroize();
        drawn.left -= bytes.len();
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn drawn<const N: usize>() -> [u8; N] {
        let mut bytes = [0; N];
        fill(&mut bytes).expect("the system gives randomness");
        bytes
    }

    /// Through many drawings, and on several threads.
    #[test]
    fn no_bits_are_given_twice() {
        let threads: Vec<_> = (0..4)
            .map(|_| std::thread::spawn(|| (0..1_000).map(|_| drawn::<24>()).collect::<Vec<_>>()))
            .collect();
        let given: Vec<[u8; 24]> =
            threads.into_iter().flat_map(|thread| thread.join().expect("it ends")).collect();
        // Parts of them neither, wherever a drawing ends.
        let parts: HashSet<&[u8]> = given.iter().flat_map(|bytes| bytes.chunks(8)).collect();
        assert_eq!(parts.len(), 4 * 1_000 * 3);
    }

    #[test]
    fn what_was_given_is_gone_from_memory() {
        // On a thread that has drawn nothing before.
        let given = std::thread::spawn(|| {
            drawn::<100>();
            UNUSED.with_borrow(|drawn| {
                assert_eq!(drawn.left, DRAWN - 100);
                assert!(drawn.bytes[drawn.left..].iter().all(|byte| *byte == 0));
                assert!(drawn.bytes[..drawn.left].iter().any(|byte| *byte != 0));
            });
        });
        given.join().expect("it is so");
    }

    #[test]
    fn more_than_is_drawn_at_once_is_given_too() {
        let long = drawn::<{ 2 * DRAWN }>();
        assert!(long.chunks(16).all(|part| part.iter().any(|byte| *byte != 0)));
    }
}
