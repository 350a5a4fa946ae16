//! What the integration tests share.

#![cfg_attr(all(), allow(dead_code, unreachable_pub, reason = "each test uses its own part"))]

pub mod ask;
pub mod binary;
pub mod by_hand;
pub mod canary;
pub mod dialects;
pub mod forward_proxy;
pub mod frames;
pub mod pair;
pub mod panics;
pub mod proxy;
pub mod raw;
pub mod still;
pub mod upstream;
pub mod websocket;
