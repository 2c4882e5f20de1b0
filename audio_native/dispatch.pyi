AVAILABLE: tuple[str, ...]
ISA: str

def set_isa(name: str) -> None: ...
