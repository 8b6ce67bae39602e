//! The operator's console, as a browser without script sees it, and as Chromium does.

mod actions;
mod browser;
mod door;
mod lists;
mod operator;
mod pages;
mod search;
