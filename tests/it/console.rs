//! The operators' console, in a client without scripts and in Chromium.

mod actions;
mod browser;
mod door;
mod lists;
mod operator;
mod pages;
mod search;
