//! Where nothing is traced, spans cost nothing: no allocation, and none of what they would say is put together.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use countersign_core::trace::TraceContext;
use countersign_trace::{Key, Name, Span, Tracer, carried};
use futures_util::FutureExt as _;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting what each thread asks it for.
struct Counting;

#[expect(unsafe_code, reason = "an allocator is unsafe; this one hands everything on")]
// SAFETY: it hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as for the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as for the caller.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

#[test]
fn a_span_that_is_none_allocates_nothing() {
    let place: TraceContext = TraceContext {
        parent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap(),
        state: None,
    };
    let tracer = Tracer::default();
    // What the first use of a thread sets up.
    drop(Span::child(Name::Judge));
    let spent = allocations(|| {
        let span = tracer.start(Name::Create);
        span.set(Key::Request, || panic!("nobody gets to know it")).set_word(Key::Outcome, "created");
        span.set_number(Key::Fuel, 1).link(Some(&place));
        span.fail("internal");
        let inside = span.around(async {
            let judge = Span::child(Name::Judge);
            judge.set(Key::Policy, || panic!("nobody gets to know it"));
            judge.place().is_none() && carried(|| Span::child(Name::Judge).place().is_none())()
        });
        assert_eq!(inside.now_or_never(), Some(true));
        assert!(span.place().is_none());
    });
    assert_eq!(spent, 0);
    assert!(allocations(|| drop(vec![1_u8])) > 0, "allocations are counted");
}
