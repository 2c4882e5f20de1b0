"""What is said: clauses, history, prompt, and the one step that decides. Pure: time comes in as an argument."""
