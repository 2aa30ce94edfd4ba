// Echoes requests over µWebSockets: it cuts packages, answers the handshake and sends bodies back.
// It has no JSON, no routes and no sessions.

#include <cstdio>
#include <string>
#include <string_view>
#include <App.h>

enum Kind : unsigned char { HANDSHAKE = 1, DATA = 4 };
enum Flag : unsigned char { REQUEST = 0, RESPONSE = 4 };

struct Nothing {};
using Socket = uWS::WebSocket<false, true, Nothing>;

// One package as one message.
static void send(Socket *socket, Kind kind, std::string_view first, std::string_view second) {
    static std::string out;
    size_t bytes = first.size() + second.size();
    out.assign({char(kind), char(bytes >> 16), char(bytes >> 8), char(bytes)});
    out.append(first).append(second);
    socket->send(out, uWS::OpCode::BINARY);
}

// Sends the body of a request back under its id, a varint.
static bool echo(Socket *socket, std::string_view message) {
    if (message.empty() || message[0] != REQUEST) return false;
    size_t id_end = 1;
    while (id_end < message.size() && message[id_end] & 0x80) id_end++;
    id_end++;
    if (id_end >= message.size()) return false;
    size_t body = id_end + 1 + (unsigned char)message[id_end];
    if (body > message.size()) return false;
    char head[8] = {RESPONSE};
    size_t head_bytes = message.copy(head + 1, std::min(id_end - 1, size_t(5)), 1) + 1;
    send(socket, DATA, {head, head_bytes}, message.substr(body));
    return true;
}

static bool take(Socket *socket, std::string_view message) {
    while (!message.empty()) {
        if (message.size() < 4) return false;
        auto byte = [&](size_t at) { return size_t((unsigned char)message[at]); };
        size_t bytes = byte(1) << 16 | byte(2) << 8 | byte(3);
        if (message.size() < 4 + bytes) return false;
        unsigned char kind = message[0];
        if (kind == HANDSHAKE) send(socket, HANDSHAKE, R"({"code":200,"sys":{}})", {});
        if (kind == DATA && !echo(socket, message.substr(4, bytes))) return false;
        message.remove_prefix(4 + bytes);
    }
    return true;
}

extern "C" void serve() {
    uWS::App().ws<Nothing>("/*", {
        .compression = uWS::DISABLED,
        .maxPayloadLength = 64 * 1024,
        .idleTimeout = 0,
        .maxBackpressure = 16 * 1024 * 1024,
        .sendPingsAutomatically = false,
        .message = [](Socket *socket, std::string_view message, uWS::OpCode) {
            if (!take(socket, message)) socket->close();
        },
    }).listen("127.0.0.1", 0, [](us_listen_socket_t *listener) {
        if (!listener) return;
        int port = us_socket_local_port(0, (us_socket_t *)listener);
        printf("tangelo listening on 127.0.0.1:%d\n", port);
        fflush(stdout);
    }).run();
}
