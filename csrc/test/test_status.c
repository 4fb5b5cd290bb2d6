#include "testing.h"

void test_status(void) {
    CHECK(strcmp(rsp_status_text(RSP_OK), "ok") == 0);
    CHECK(strlen(rsp_status_text(RSP_FULL)) > 0);
    CHECK(strcmp(rsp_status_text((rsp_status)99), "unknown status") == 0);
    CHECK(strlen(rsp_simd_level()) > 0);
}
