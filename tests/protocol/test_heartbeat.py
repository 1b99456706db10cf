from trigger_ddp.protocol.heartbeat import Beat, Heartbeat


def test_a_silent_client_is_pinged_then_given_up():
    heartbeat = Heartbeat(15, 15, now=0)
    assert heartbeat.beat(14.9) is Beat.NOTHING
    assert heartbeat.beat(15) is Beat.PING
    assert heartbeat.next == 30
    assert heartbeat.beat(30) is Beat.GONE


def test_a_client_that_talks_is_never_pinged():
    heartbeat = Heartbeat(15, 15, now=0)
    for tick in range(15, 150, 15):
        heartbeat.heard()
        assert heartbeat.beat(tick) is Beat.NOTHING


def test_any_message_counts_as_a_pong():
    heartbeat = Heartbeat(15, 20, now=0)
    assert heartbeat.beat(15) is Beat.PING
    heartbeat.heard()
    assert heartbeat.beat(30) is Beat.NOTHING, "it was heard since the last tick"
    assert heartbeat.beat(45) is Beat.PING


def test_the_deadline_may_lie_between_ticks():
    heartbeat = Heartbeat(15, 5, now=100)
    assert heartbeat.beat(115) is Beat.PING
    assert heartbeat.next == 120
    assert heartbeat.beat(119) is Beat.NOTHING
    assert heartbeat.beat(120) is Beat.GONE
