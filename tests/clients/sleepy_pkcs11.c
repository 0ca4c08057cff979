/* A PKCS#11 module that wraps another one (SLEEPY_MODULE) and sleeps in C_Sign, and in C_Login, as long as the file SLEEPY_FILE is there:
 * the module of a token that does not answer. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long rv;
typedef rv (*login_function)(unsigned long, unsigned long, unsigned char *, unsigned long);
typedef rv (*sign_function)(unsigned long, unsigned char *, unsigned long, unsigned char *, unsigned long *);

/* CK_FUNCTION_LIST of PKCS #11 2.40: a version, then 68 functions. */
struct list {
    struct { unsigned char major, minor; } version;
    void *of[68];
};
enum { C_LOGIN = 18, C_SIGN = 43, GENERAL_ERROR = 5 };

static struct list *real, wrapped;

static void sleep_on(void) {
    const char *file = getenv("SLEEPY_FILE");
    while (file && access(file, F_OK) == 0) usleep(10000);
}

static rv login(unsigned long session, unsigned long user, unsigned char *pin, unsigned long length) {
    sleep_on();
    return ((login_function)real->of[C_LOGIN])(session, user, pin, length);
}

static rv sign(unsigned long session, unsigned char *data, unsigned long length, unsigned char *out, unsigned long *out_length) {
    sleep_on();
    return ((sign_function)real->of[C_SIGN])(session, data, length, out, out_length);
}

rv C_GetFunctionList(struct list **list) {
    void *library = dlopen(getenv("SLEEPY_MODULE"), RTLD_NOW | RTLD_LOCAL);
    if (!library) return GENERAL_ERROR;
    rv (*get)(struct list **) = (rv (*)(struct list **))dlsym(library, "C_GetFunctionList");
    if (!get || get(&real)) return GENERAL_ERROR;
    memcpy(&wrapped, real, sizeof wrapped);
    wrapped.of[C_LOGIN] = (void *)login;
    wrapped.of[C_SIGN] = (void *)sign;
    *list = &wrapped;
    return 0;
}
