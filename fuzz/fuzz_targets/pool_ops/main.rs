//! Any story that can happen to a pool, told through its public face: what can be seen from outside must hold.
//!
//! `pool::tests::machine` compares every answer with a model that knows the pool's insides. This target knows only what
//! a caller knows, so that a mistake that both share is still one here.

#![no_main]

mod input;
mod world;

use input::Script;
use libfuzzer_sys::fuzz_target;
use world::World;

/// So many requests are enough of a story: more of them find nothing and take long.
const MOST_REQUESTS: usize = 1000;

fuzz_target!(|script: Script| {
    let mut world = World::new(&script);
    for op in &script.ops {
        if world.requests() >= MOST_REQUESTS {
            break;
        }
        world.apply(op);
    }
    world.finish();
});
