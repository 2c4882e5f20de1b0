"""A minimal telephone bot on pipecat, as its own Twilio examples are made, with stub providers; a process of its own:

    python bot.py --port P --turn silence|smart

Silero decides what is speech (pipecat's defaults); the turn ends by silence, as with our server, or by its smart-turn
model. The pipeline runs at 8 kHz throughout, so that nothing is resampled. The stub model prints a line for each
answered turn, where an observer of the bench would be told of every frame.
"""

from __future__ import annotations

import argparse
import json
import sys
from urllib.parse import parse_qsl

import uvicorn
from fastapi import FastAPI, Request, Response, WebSocket
from loguru import logger
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import TTSSpeakFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair, LLMUserAggregatorParams
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.turns.user_start import VADUserTurnStartStrategy
from pipecat.turns.user_stop import SpeechTimeoutUserTurnStopStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.workers.runner import WorkerRunner
from stub import RATE_HZ, StubModel, StubSynthesizer, StubTranscriber

GREETING = "Good day, this line is under load."
SPEECH_TIMEOUT_S = 0.3
"""After the 0.2 s that its VAD waits: the turn is over after half a second of silence, as in our server's preset."""
TWIML = (
    '<?xml version="1.0" encoding="UTF-8"?><Response><Connect><Stream url="wss://{host}/media">'
    '<Parameter name="caller" value="{caller}"/></Stream></Connect></Response>'
)
app = FastAPI()
turn_kind = "silence"


@app.get("/readyz")
async def readyz() -> Response:
    return Response(status_code=200)


@app.post("/twilio/voice")
async def voice(request: Request) -> Response:
    form = dict(parse_qsl((await request.body()).decode(), keep_blank_values=True))
    text = TWIML.format(host=request.headers.get("host", "localhost"), caller=form.get("From", ""))
    return Response(text, media_type="text/xml")


@app.post("/twilio/status")
async def status() -> Response:
    return Response(status_code=204)


@app.websocket("/media")
async def media(socket: WebSocket) -> None:
    await socket.accept()
    start: dict = {}
    while start.get("event") != "start":
        start = json.loads(await socket.receive_text())
    await run_bot(socket, start["streamSid"], start["start"]["customParameters"].get("caller", ""))


def strategies() -> UserTurnStrategies:
    if turn_kind == "smart":
        return UserTurnStrategies()
    return UserTurnStrategies(
        start=[VADUserTurnStartStrategy()],
        stop=[SpeechTimeoutUserTurnStopStrategy(user_speech_timeout=SPEECH_TIMEOUT_S)],
    )


async def run_bot(socket: WebSocket, stream_sid: str, caller: str) -> None:
    serializer = TwilioFrameSerializer(
        stream_sid=stream_sid, params=TwilioFrameSerializer.InputParams(auto_hang_up=False)
    )
    transport = FastAPIWebsocketTransport(
        socket,
        FastAPIWebsocketParams(
            audio_in_enabled=True, audio_out_enabled=True, add_wav_header=False, serializer=serializer
        ),
    )
    params = LLMUserAggregatorParams(user_turn_strategies=strategies(), vad_analyzer=SileroVADAnalyzer())
    aggregators = LLMContextAggregatorPair(LLMContext(), user_params=params)
    pipeline = Pipeline(
        [
            transport.input(),
            StubTranscriber(caller),
            aggregators.user(),
            StubModel(caller),
            StubSynthesizer(),
            transport.output(),
            aggregators.assistant(),
        ]
    )
    worker = PipelineWorker(
        pipeline,
        params=PipelineParams(audio_in_sample_rate=RATE_HZ, audio_out_sample_rate=RATE_HZ),
        enable_rtvi=False,
    )

    @transport.event_handler("on_client_connected")
    async def greet(transport: FastAPIWebsocketTransport, client: WebSocket) -> None:
        await worker.queue_frames([TTSSpeakFrame(GREETING)])

    @transport.event_handler("on_client_disconnected")
    async def leave(transport: FastAPIWebsocketTransport, client: WebSocket) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


def main() -> None:
    global turn_kind  # noqa: PLW0603 - one process, one bot
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--turn", choices=["silence", "smart"], default="silence")
    asked = parser.parse_args()
    turn_kind = asked.turn
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    uvicorn.run(app, host="127.0.0.1", port=asked.port, log_level="warning", loop="auto", ws="auto")


if __name__ == "__main__":
    main()
