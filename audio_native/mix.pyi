from typing import Final

from typing_extensions import Buffer

UNITY_Q15: Final[int]

def mix_q15(dst: Buffer, src: Buffer, gain_q15: int) -> None: ...
def gain_ramp(samples: Buffer, from_q15: int, to_q15: int) -> None: ...
