"""The process and its machine: embedded servers, supervisor, admission, drain, doctor."""
