//! How long an event takes from bytes to a body: `cargo bench -p tidings-catalogue`.

use std::{hint::black_box, time::Instant};

use tidings_catalogue::{Catalogue, decode, json::Document, render::render};
use tidings_types::{Shape, Timestamp};

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn measure(name: &str, bytes: usize, mut run: impl FnMut()) {
    const ROUNDS: u32 = 200_000;
    for _ in 0..ROUNDS / 10 {
        run();
    }
    let start = Instant::now();
    for _ in 0..ROUNDS {
        run();
    }
    let each = start.elapsed() / ROUNDS;
    #[expect(clippy::print_stdout, reason = "a bench prints what it measured")]
    {
        println!("{name:<24} {bytes:>5} bytes {:>6} ns", each.as_nanos());
    }
}

fn main() {
    let catalogue = Catalogue::builtin();
    let now = Timestamp::from_secs(1_730_214_990);
    for name in ["101", "112", "111", "transaction.sale.success"] {
        let Some(kind) = catalogue.get(name) else { continue };
        let sample = kind.sample(now, 1, 20, "m_9f2");
        measure(&format!("scan {name}"), sample.len(), || {
            black_box(Document::parse(black_box(&sample)).is_ok());
        });
        measure(&format!("decode {name}"), sample.len(), || {
            black_box(decode(&catalogue, Some(name), black_box(&sample)).is_ok());
        });
        measure(&format!("decode, render {name}"), sample.len(), || {
            if let Ok(event) = decode(&catalogue, Some(name), black_box(&sample)) {
                black_box(render(&event, Shape::Plain, now));
            }
        });
    }
}
