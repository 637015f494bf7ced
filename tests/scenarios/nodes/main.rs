//! The user stories that need pods that run: on real nodes, with storage that
//! has snapshots, and the operator in pods as its chart installs it. Root only.

#![allow(
    clippy::print_stdout,
    reason = "a story says its seed, and how much there was to compare"
)]

mod a_damaged_volume_is_restored_in_place;
mod a_database_moves_to_another_cluster;
mod a_kept_snapshot_brings_a_volume_back;
mod a_killed_volume_backup_ends_truthfully;
mod a_second_move_sends_only_what_has_changed;
mod a_volume_is_equal_in_the_other_cluster;
mod a_volume_without_snapshots_is_read_where_it_is_mounted;
mod blows;
mod many_volumes_are_saved_a_few_at_a_time;
